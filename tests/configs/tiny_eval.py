"""The run that test_evaluation.py makes without training."""

from tests import tiny


def get_config():
    """A source run that is evaluated image by image."""
    return tiny.tiny_config("source", data__eval__length=24, eval__batch_size=1)
