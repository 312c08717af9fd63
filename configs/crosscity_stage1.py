"""Cityscapes to Cross-City: stage1. Settings: tufl_jax/paper_recipes.py.

CITYSCAPES=FOLDER CROSSCITY=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/crosscity_stage1.py:Rio

Cities: Rio, Rome, Taipei, Tokyo. DeepLabV2, with RESNET101 in place of RESNET18:
--config configs/crosscity_stage1.py:Rio/deeplab
"""

from tufl_jax import paper_recipes


def get_config(variant="Rio"):
    """The run 'stage1' of configs/crosscity.py for a city, or for 'CITY/NETWORK'."""
    city, network = paper_recipes.city_and_network(variant)
    return paper_recipes.run(city, "stage1", network)
