"""CamVid day to dusk: source, stage 1 and stage 2 in one command.

CAMVID=FOLDER RESNET18=FILE python -m tufl_jax.main --config configs/camvid.py
"""

from tufl_jax import presets


def get_config():
    """The recipe; its settings are in tufl_jax/presets.py."""
    return presets.camvid()
