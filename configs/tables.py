"""The base of `python -m tufl_jax.sweep`: the demo, small enough for 60 trainings.

python -m tufl_jax.sweep --table table3
"""

import pathlib
import runpy

SIZE = (64, 128)
STEPS = {"source": 300, "stage1": 200, "stage2": 300}


def get_config():
    """The recipe of configs/demo.py on smaller images, with the main head alone."""
    demo = runpy.run_path(str(pathlib.Path(__file__).with_name("demo.py")))
    c = demo["get_config"]()
    c.model.aux_heads = False  # a quarter of the step's time
    for part in (c.data.source, c.data.target, c.data.eval):
        part.size = SIZE
    for domain in (c.data.source, c.data.target):
        domain.crop = SIZE
    for run, steps in STEPS.items():
        c.runs[run].train.num_steps = steps
    c.train.summary_every = 0
    c.train.eval_every = 0
    return c
