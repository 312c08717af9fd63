"""The whole chain on a folder of tiny images: $TINY_DATA."""

from tests import tiny


def get_config():
    """Source, stage 1 and stage 2 with eight steps each."""
    c = tiny.tiny_config("source", train__num_steps=8)
    for domain in (c.data.source, c.data.target, c.data.eval):
        domain.update(name="cityscapes", root="$TINY_DATA", split="train")
    c.data.eval.split = "val"
    c.data.source.batch_size = c.data.target.batch_size = 2
    c.train.summary_every = 4
    c.train.eval_every = 4
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
