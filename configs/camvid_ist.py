"""CamVid day to dusk on translated days: CycleGAN, its translation, then the stages.

CAMVID=FOLDER RESNET18=FILE python -m tufl_jax.main --config configs/camvid_ist.py

The recipe of configs/camvid.py with a style translation before it.
"""

from tufl_jax import presets


def get_config():
    """One command: trains the translation, translates the days, trains on them."""
    c = presets.camvid().unlock()
    c.style.width = 24  # of 64, and 6 blocks of 9, for a CPU
    c.style.blocks = 6
    c.data.source.translated = "cyclegan"
    c.recipe = ("cyclegan", *c.recipe)
    with c.unlocked():
        c.runs.cyclegan = {
            "stage": "cyclegan",
            "data": {
                "source": {"translated": "", "scales": (1.0,), "batch_size": 1},
                "target": {"scales": (1.0,), "batch_size": 1},
            },
            "optim": presets.CYCLEGAN,
            "train": {"num_steps": 1500, "summary_every": 500, "eval_every": 500},
        }
    return c.lock()
