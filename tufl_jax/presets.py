"""Recipes that several config files share: one function per data set pair.

A file in configs/ returns a whole recipe or, with `single`, one of its runs.
"""

import os

from ml_collections import ConfigDict

from tufl_jax import config as config_lib


def single(recipe: ConfigDict, name: str, *, folder: str) -> ConfigDict:
    """The run `name` of a recipe as a config of its own.

    The runs it builds on are looked for in `<folder>_<their name>`, the default
    workdirs of the sibling config files.
    """
    run = config_lib.run_config(recipe, name)
    for section in (run.init, run.teacher):
        if section.run in recipe.recipe:
            section.run = f"{folder}_{section.run}"
    return run.lock()


def camvid() -> ConfigDict:
    """CamVid day (labelled) to dusk (unlabelled), reduced to 120 x 160.

    $CAMVID is a folder with camvid_day and camvid_dusk in Cityscapes layout and,
    optionally used, $RESNET18 a file with ImageNet weights. The labels of dusk serve
    evaluation only; the oracle alone trains on them, on the first half of the
    sequence, so compare it on the second half (config.data.eval.start=0.5).
    """
    c = config_lib.base()
    size = (120, 160)
    c.data.source.update(name="cityscapes", root="$CAMVID/camvid_day", split="train")
    c.data.target.update(name="cityscapes", root="$CAMVID/camvid_dusk", split="train")
    c.data.eval.update(name="cityscapes", root="$CAMVID/camvid_dusk", split="train")
    for domain in (c.data.source, c.data.target):
        domain.resize = size
        domain.crop = (96, 128)
        domain.scales = (0.8, 1.0, 1.25)
        domain.batch_size = 2
    c.eval.resize = size
    c.eval.batch_size = 4
    c.augment.rotation = 10.0
    c.optim.head_multiplier = 10.0
    c.train.log_every = 20
    c.train.checkpoint_every = 100
    c.train.eval_every = 200
    c.train.summary_every = 200
    c.recipe = ("source", "stage1", "stage2")
    adapt = {
        "optim": {"learning_rate": 5e-4, "warmup_steps": 20, "warmup_start": 0.0},
        "train": {"num_steps": 100},
    }
    source = {
        "stage": "source",
        "init": {"pretrained": "$RESNET18" if "RESNET18" in os.environ else ""},
        "data": {"source": {"batch_size": 4}},
        "optim": {"learning_rate": 2.5e-3, "warmup_steps": 20, "warmup_start": 0.0},
        "train": {"num_steps": 150},
    }
    on_dusk = {
        "batch_size": 4,
        "root": "$CAMVID/camvid_dusk",
        "stop": 0.5,
    }
    with c.unlocked():
        c.runs.source = source
        c.runs.stage1 = {"stage": "stage1", "init": {"run": "source"}, **adapt}
        c.runs.stage2 = {
            "stage": "stage2",
            "init": {"run": "source"},
            "teacher": {"run": "stage1"},
            **adapt,
        }
        c.runs.oracle = {**source, "data": {"source": on_dusk}}
    return c.lock()
