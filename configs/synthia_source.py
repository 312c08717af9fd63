"""SYNTHIA to Cityscapes: source. Settings: tufl_jax/paper_recipes.py.

SYNTHIA=FOLDER CITYSCAPES=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/synthia_source.py

DeepLabV2, with RESNET101 in place of RESNET18:
--config configs/synthia_source.py:deeplab
"""

from tufl_jax import paper_recipes


def get_config(network="bisenet"):
    """The run 'source' of configs/synthia.py."""
    return paper_recipes.run("synthia", "source", network)
