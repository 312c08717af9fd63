"""Cityscapes to Cross-City: stage2. Settings: tufl_jax/paper_recipes.py.

CITYSCAPES=FOLDER CROSSCITY=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/crosscity_stage2.py:Rio

Cities: Rio, Rome, Taipei, Tokyo. DeepLabV2, with RESNET101 in place of RESNET18:
--config configs/crosscity_stage2.py:Rio/deeplab
"""

from tufl_jax import paper_recipes


def get_config(variant="Rio"):
    """The run 'stage2' of configs/crosscity.py for a city, or for 'CITY/NETWORK'."""
    city, network = paper_recipes.city_and_network(variant)
    return paper_recipes.run(city, "stage2", network)
