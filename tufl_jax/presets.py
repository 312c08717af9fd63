"""Recipes that several config files share: one function per data set pair.

A file in configs/ returns a whole recipe or, with `single`, one of its runs.
"""

import os

from ml_collections import ConfigDict

from tufl_jax import config as config_lib
from tufl_jax import labels

# Adam at 2e-4, constant for half of the steps, then falling linearly to 0.
CYCLEGAN = {
    "name": "adamw",
    "momentum": 0.5,
    "weight_decay": 0.0,
    "learning_rate": 2e-4,
    "warmup_steps": 0,
    "power": 1.0,
    "constant": 0.5,
}


def single(
    recipe: ConfigDict, name: str, *, folder: str, variant: str = ""
) -> ConfigDict:
    """The run `name` of a recipe as a config of its own.

    The runs it builds on are looked for in `<folder>_<their name>`, and below it in
    `variant`: the default workdirs of the sibling config files.
    """
    run = config_lib.run_config(recipe, name)
    for section in (run.init, run.teacher):
        if section.run in recipe.recipe:
            section.run = "/".join(filter(None, [f"{folder}_{section.run}", variant]))
    return run.lock()


def camvid() -> ConfigDict:
    """CamVid day (labelled) to dusk (unlabelled), reduced to 240 x 320.

    $CAMVID is a folder with camvid_day and camvid_dusk in Cityscapes layout and,
    optionally used, $RESNET18 a file with ImageNet weights. The labels of dusk serve
    evaluation only; the oracle alone trains on them, on the first half of the
    sequence, so compare it on the second half (config.data.eval.start=0.5).
    """
    c = config_lib.base()
    size = (240, 320)
    c.data.source.update(name="cityscapes", root="$CAMVID/camvid_day", split="train")
    c.data.target.update(name="cityscapes", root="$CAMVID/camvid_dusk", split="train")
    c.data.eval.update(name="cityscapes", root="$CAMVID/camvid_dusk", split="train")
    for domain in (c.data.source, c.data.target):
        domain.resize = size
        domain.crop = (192, 256)
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
        "train": {"num_steps": 400},
    }
    source = {
        "stage": "source",
        "init": {"pretrained": "$RESNET18" if "RESNET18" in os.environ else ""},
        "data": {"source": {"batch_size": 4}},
        "optim": {"learning_rate": 2.5e-3, "warmup_steps": 20, "warmup_start": 0.0},
        "train": {"num_steps": 600},
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


# 1 / log(1.1 + share of pixels), twice that for the rare classes: the 'middle' weights
# of the release (unsup/get_loss.py).
_WEIGHTS_19 = (2.624, 5.596, 3.919, 8.705, 9.711, 9.418, 10.293, 10.344, 5.859, 8.507)
_WEIGHTS_19 += (4.426, 10.076, 10.234, 8.131, 8.889, 8.797, 9.087, 10.284, 10.154)
_WEIGHTS_16 = (3.916, 3.814, 2.952, 9.866, 10.156, 9.521, 10.433, 10.382, 5.259, 6.188)
_WEIGHTS_16 += (7.436, 10.027, 7.441, 8.779, 10.243, 10.269)
_RARE = {
    19: ("rider", "train", "motorcycle", "bicycle"),
    16: ("rider", "car", "bus", "motorcycle", "bicycle"),
    13: ("rider", "motorcycle", "bicycle"),
}


def released_class_weights(num_classes: int) -> tuple[float, ...]:
    """The release's 'middle' class weights for 19, 16 or 13 classes."""
    names = labels.class_names(num_classes)
    table = _WEIGHTS_16 if num_classes == 16 else _WEIGHTS_19
    of = labels.class_names(16 if num_classes == 16 else 19)
    weights = dict(zip(of, table, strict=True))
    return tuple(weights[n] * (2 if n in _RARE[num_classes] else 1) for n in names)


def released(config: ConfigDict) -> None:
    """Set every option in which the authors' released code differs from the paper.

    Not the loss: 'focal' with config.loss.threshold 'dynamic' or 'fixed' (then the
    release's factor is 'difference'), 'neutral' and 'shannon' (then with `hardest`
    0.25) and the others remain the user's choice, as does lambda_u. Sources and what
    cannot be expressed: docs/paper.md.
    """
    config.loss.update(
        modulation="argmax",
        class_weights=released_class_weights(config.num_classes),
        squares_sign=1.0,
        epsilon=1e-30,
        released_floor=True,
        mean_over="all",
    )
    config.thresholds.update(variant="released", update_per="head", pixels="all")
    config.mixing.update(
        long_tail_draws=2,
        long_tail_extra=2,
        long_tail_probability=0.3,
        long_tail_fewer=2,
        pasted="always",
        ignored_is_class=True,
        target_weight="confident_share",
        boundary_size=0,
    )
    config.model.batch_norm = "frozen"
    config.optim.update(backbone_multiplier=10.0, head_multiplier=10.0, warmup_steps=0)
