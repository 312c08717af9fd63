"""The source training of tiny_recipe.py alone."""

from tests.configs import tiny_recipe
from tufl_jax import config as config_lib


def get_config():
    """The run 'source'."""
    return config_lib.run_config(tiny_recipe.get_config(), "source")
