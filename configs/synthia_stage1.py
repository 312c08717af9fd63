"""SYNTHIA to Cityscapes: stage1. Settings: tufl_jax/paper_recipes.py.

SYNTHIA=FOLDER CITYSCAPES=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/synthia_stage1.py

DeepLabV2, with RESNET101 in place of RESNET18:
--config configs/synthia_stage1.py:deeplab
"""

from tufl_jax import paper_recipes


def get_config(network="bisenet"):
    """The run 'stage1' of configs/synthia.py."""
    return paper_recipes.run("synthia", "stage1", network)
