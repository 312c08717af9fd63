"""The demo on translated streets: CycleGAN, its translation, source, stage 1, stage 2.

python -m tufl_jax.main --config configs/demo_ist.py

One command trains the translation, translates the source images and trains on them.
"""

import pathlib
import runpy

from tufl_jax import presets


def get_config():
    """The recipe of configs/demo.py with a style translation before it."""
    demo = runpy.run_path(str(pathlib.Path(__file__).with_name("demo.py")))
    c = demo["get_config"]()
    c.style.width = 16  # of 64, and 4 blocks of 9, for a CPU
    c.style.blocks = 4
    c.data.source.translated = "cyclegan"
    c.recipe = ("cyclegan", *c.recipe)
    with c.unlocked():
        c.runs.cyclegan = {
            "stage": "cyclegan",
            "data": {
                "source": {"translated": "", "crop": (64, 128), "batch_size": 1},
                "target": {"crop": (64, 128), "batch_size": 1},
            },
            "optim": presets.CYCLEGAN,
            "train": {"num_steps": 700, "summary_every": 350},
        }
    return c
