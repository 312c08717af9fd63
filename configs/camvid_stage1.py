"""CamVid day to dusk: stage1. Settings: tufl_jax/presets.py.

CAMVID=FOLDER RESNET18=FILE python -m tufl_jax.main --config configs/camvid_stage1.py
"""

from tufl_jax import presets


def get_config():
    """The run 'stage1' of configs/camvid.py."""
    return presets.single(presets.camvid(), "stage1", folder="runs/camvid")
