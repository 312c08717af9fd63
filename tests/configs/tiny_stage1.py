"""The stage-1 training of tiny_recipe.py alone, from random weights."""

from tests.configs import tiny_recipe
from tufl_jax import config as config_lib


def get_config():
    """The run 'stage1' without the source training before it."""
    config = config_lib.run_config(tiny_recipe.get_config(), "stage1")
    config.init.run = ""
    return config
