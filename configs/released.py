"""Cityscapes to Cross-City as the authors' published code and commands train it.

CITYSCAPES=FOLDER CROSSCITY=FOLDER RESNET18=FILE \
    python -m tufl_jax.main --config configs/released.py:Rio

All differences from the paper together (presets.released, docs/paper.md), with the
published commands' lambda_u and 2,000 steps of 2 + 2 images.
"""

from tufl_jax import paper_recipes, presets


def get_config(city="Rio"):
    """The recipe for a city."""
    c = paper_recipes.recipe(city)
    presets.released(c)
    c.loss.lambda_u = 0.08
    return c
