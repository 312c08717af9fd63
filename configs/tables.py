"""The base of `python -m tufl_jax.sweep`: the demo's streets with fewer steps.

python -m tufl_jax.sweep --table table3
"""

import pathlib
import runpy

# Steps of each run, about half of those of the demo.
STEPS = {"source": 250, "stage1": 200, "stage2": 300}


def get_config():
    """The recipe of configs/demo.py, shortened."""
    demo = runpy.run_path(str(pathlib.Path(__file__).with_name("demo.py")))
    c = demo["get_config"]()
    for run, steps in STEPS.items():
        c.runs[run].train.num_steps = steps
    c.train.summary_every = 0
    c.train.eval_every = 0
    return c
