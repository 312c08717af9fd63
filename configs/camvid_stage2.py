"""CamVid day to dusk: stage2. Settings: tufl_jax/presets.py.

CAMVID=FOLDER RESNET18=FILE python -m tufl_jax.main --config configs/camvid_stage2.py
"""

from tufl_jax import presets


def get_config():
    """The run 'stage2' of configs/camvid.py."""
    return presets.single(presets.camvid(), "stage2", folder="runs/camvid")
