"""CycleGAN from the rendered streets to the camera's, on a CPU.

python -m tufl_jax.main --config configs/cyclegan_streets.py
python -m tufl_jax.translate --config configs/cyclegan_streets.py
"""

import pathlib
import runpy

from tufl_jax import config as config_lib


def get_config():
    """The run 'cyclegan' of configs/demo_ist.py."""
    whole = runpy.run_path(str(pathlib.Path(__file__).with_name("demo_ist.py")))
    return config_lib.run_config(whole["get_config"](), "cyclegan").lock()
