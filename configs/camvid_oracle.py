"""CamVid day to dusk: oracle. Settings: tufl_jax/presets.py.

CAMVID=FOLDER RESNET18=FILE python -m tufl_jax.main --config configs/camvid_oracle.py
"""

from tufl_jax import presets


def get_config():
    """The run 'oracle' of configs/camvid.py."""
    return presets.single(presets.camvid(), "oracle", folder="runs/camvid")
