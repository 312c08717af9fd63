"""GTA5 to Cityscapes: stage1. Settings: tufl_jax/paper_recipes.py.

GTA5=FOLDER CITYSCAPES=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/gta5_stage1.py

DeepLabV2, with RESNET101 in place of RESNET18:
--config configs/gta5_stage1.py:deeplab
"""

from tufl_jax import paper_recipes


def get_config(network="bisenet"):
    """The run 'stage1' of configs/gta5.py."""
    return paper_recipes.run("gta5", "stage1", network)
