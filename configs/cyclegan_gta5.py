"""CycleGAN from GTA5 to Cityscapes. Settings: tufl_jax/paper_recipes.py.

GTA5=FOLDER CITYSCAPES=FOLDER \
    python -m tufl_jax.main --config configs/cyclegan_gta5.py
GTA5=FOLDER CITYSCAPES=FOLDER \
    python -m tufl_jax.translate --config configs/cyclegan_gta5.py

Then configs/gta5.py and its single runs find the translated images by themselves.
"""

from tufl_jax import paper_recipes


def get_config():
    """The run 'cyclegan' of configs/gta5_ist.py."""
    return paper_recipes.style("gta5")
