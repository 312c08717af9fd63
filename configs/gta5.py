"""GTA5 to Cityscapes: all stages. Settings: tufl_jax/paper_recipes.py.

GTA5=FOLDER CITYSCAPES=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/gta5.py

DeepLabV2, with RESNET101 in place of RESNET18:
--config configs/gta5.py:deeplab
"""

from tufl_jax import paper_recipes


def get_config(network="bisenet"):
    """The recipe."""
    return paper_recipes.recipe("gta5", network)
