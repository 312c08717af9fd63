"""SYNTHIA to Cityscapes: oracle. Settings: tufl_jax/paper_recipes.py.

SYNTHIA=FOLDER CITYSCAPES=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/synthia_oracle.py

DeepLabV2, with RESNET101 in place of RESNET18:
--config configs/synthia_oracle.py:deeplab
"""

from tufl_jax import paper_recipes


def get_config(network="bisenet"):
    """The run 'oracle' of configs/synthia.py."""
    return paper_recipes.run("synthia", "oracle", network)
