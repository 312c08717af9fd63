"""Cityscapes to Cross-City: source, stage 1 and stage 2 for one city.

CITYSCAPES=FOLDER CROSSCITY=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/crosscity.py:Rio

Cities: Rio, Rome, Taipei, Tokyo. DeepLabV2, with RESNET101 in place of RESNET18:
--config configs/crosscity.py:Rio/deeplab. Settings: tufl_jax/paper_recipes.py.
"""

from tufl_jax import paper_recipes


def get_config(variant="Rio"):
    """The recipe for a city, or for 'CITY/NETWORK'."""
    return paper_recipes.recipe(*paper_recipes.city_and_network(variant))
