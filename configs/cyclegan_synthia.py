"""CycleGAN from SYNTHIA to Cityscapes. Settings: tufl_jax/paper_recipes.py.

SYNTHIA=FOLDER CITYSCAPES=FOLDER \
    python -m tufl_jax.main --config configs/cyclegan_synthia.py
SYNTHIA=FOLDER CITYSCAPES=FOLDER \
    python -m tufl_jax.translate --config configs/cyclegan_synthia.py

Then configs/synthia.py and its single runs find the translated images by themselves.
"""

from tufl_jax import paper_recipes


def get_config():
    """The run 'cyclegan' of configs/synthia_ist.py."""
    return paper_recipes.style("synthia")
