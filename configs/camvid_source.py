"""CamVid day to dusk: source. Settings: tufl_jax/presets.py.

CAMVID=FOLDER RESNET18=FILE python -m tufl_jax.main --config configs/camvid_source.py
"""

from tufl_jax import presets


def get_config():
    """The run 'source' of configs/camvid.py."""
    return presets.single(presets.camvid(), "source", folder="runs/camvid")
