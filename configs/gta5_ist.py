"""GTA5 to Cityscapes with BiSeNet, and the translation of its source before it.

GTA5=FOLDER CITYSCAPES=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/gta5_ist.py

CycleGAN, translated images and all stages in one command. Settings:
tufl_jax/paper_recipes.py.
"""

from tufl_jax import paper_recipes


def get_config():
    """The recipe of configs/gta5.py with the run 'cyclegan' first."""
    return paper_recipes.with_style("gta5")
