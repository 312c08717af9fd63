"""SYNTHIA to Cityscapes: all stages. Settings: tufl_jax/paper_recipes.py.

SYNTHIA=FOLDER CITYSCAPES=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/synthia.py

DeepLabV2, with RESNET101 in place of RESNET18:
--config configs/synthia.py:deeplab
"""

from tufl_jax import paper_recipes


def get_config(network="bisenet"):
    """The recipe."""
    return paper_recipes.recipe("synthia", network)
