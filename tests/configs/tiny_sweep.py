"""A base for `python -m tufl_jax.sweep` with two steps a run on tiny streets."""

from tests import tiny


def get_config():
    """Source, stage 1 and stage 2."""
    c = tiny.tiny_config("source", train__num_steps=2, optim__warmup_steps=1)
    c.data.source.batch_size = c.data.target.batch_size = 2
    c.data.eval.length = 2
    c.data.source.length = c.data.target.length = 4
    c.train.update(log_every=1, checkpoint_every=2)
    c.recipe = ("source", "stage1", "stage2")
    with c.unlocked():
        c.runs.source = {"stage": "source"}
        c.runs.stage1 = {"stage": "stage1", "init": {"run": "source"}}
        c.runs.stage2 = {
            "stage": "stage2",
            "init": {"run": "source"},
            "teacher": {"run": "stage1"},
        }
    return c
