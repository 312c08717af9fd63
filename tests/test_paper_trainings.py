"""Every config of the paper takes two steps on replicas of its data sets.

What XLA compiles is what takes the time, so all configs of a network and stage share
one program: crops of 32 x 64, 13 classes (test_paper.py has the numbers of classes,
test_sources.py their labels), trunks of a few layers.
"""

import csv
import functools
import json
import subprocess
import sys
import types

import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from tests import replicas
from tests.test_paper import CONFIGS, PAIRS, STAGES, get_config, variants
from tests.tiny import child_environment, command_module
from tufl_jax import config as config_lib
from tufl_jax import evaluation, models, paper_recipes
from tufl_jax import recipe as recipes
from tufl_jax.models import bisenet, layers
from tufl_jax.steps import step as step_lib
from tufl_jax.train import train

sweep = command_module("sweep")


class Trunk(nn.Module):
    """In place of ResNet-18: three convolutions."""

    width: int
    options: layers.Options

    @nn.compact
    def __call__(self, x, *, train):
        maps = []
        for i, stride in enumerate((8, 2, 2)):
            x = layers.ConvBNAct(
                2 ** (i + 1) * self.width,
                3,
                self.options,
                stride=stride,
                name=f"layer{i}",
            )(x, train=train)
            maps.append(x)
        return tuple(maps)


def shared(make, key_of):
    """`make`, called once a key; keys hold all that the result depends on."""
    made = {}

    def get(*arguments):
        key = key_of(*arguments)
        if key not in made:
            made[key] = make(*arguments)
        return made[key]

    return get


def key_of_step(loss_fn, ctx, optimizer, mesh):
    settings = config_lib.as_json(ctx.config)
    for name in ("data", "eval", "init", "teacher"):  # not read by a step
        del settings[name]
    return loss_fn, json.dumps(settings), mesh


def key_of_predictor(config, model):
    settings = config_lib.as_json(config)
    return json.dumps([settings[x] for x in ("model", "eval", "num_classes")])


@pytest.fixture(scope="module", autouse=True)
def few_small_programs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bisenet, "ResNet18", Trunk)
        small = functools.partial(models.MODELS["deeplabv2"], blocks=(1, 0, 0, 3))
        patch.setitem(models.MODELS, "deeplabv2", small)
        make = shared(step_lib.make_train_step, key_of_step)
        patch.setattr(step_lib, "make_train_step", make)
        make = shared(evaluation.Predictor, key_of_predictor)
        patch.setattr(evaluation, "Predictor", make)
        patch.setattr(models, "shapes", shared(models.shapes, lambda *x: repr(x)))
        yield


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Replicas of the data sets, with 'translated' images."""
    root = tmp_path_factory.mktemp("archives")
    replicas.synthia(root / "synthia", count=4)
    replicas.gta5(root / "gta5")
    for images in ("synthia/RAND_CITYSCAPES/RGB", "gta5/images"):
        (root / f"{images}_translated").symlink_to(root / images)
    replicas.cityscapes(root / "cityscapes", per_split=4)
    replicas.train_extra(root / "cityscapes", count=4)
    for city in paper_recipes.CITIES:
        replicas.crosscity(root / "crosscity", city=city, train=4, test=4)
    return root


def shrunk(run, root):
    """A config of the paper at the size of the replicas, two steps long."""
    source = run.data.source
    if source.translated:
        folder = {"synthia": "RAND_CITYSCAPES/RGB", "gta5": "images"}[source.name]
        source.translated = str(root / source.name / f"{folder}_translated")
    for spec in (run.data.source, run.data.target, run.data.eval):
        spec.root = str(root / spec.name)
    for spec in (run.data.source, run.data.target):
        spec.crop = (32, 64)
        spec.batch_size = 1
        spec.resize = None if spec.resize is None else (32, 64)
        spec.scale_width = (64, 96) if spec.scale_width else ()
    run.num_classes = 13
    run.model.width = 8
    run.init.pretrained = ""
    run.mixing.min_pixels = 1
    run.eval.batch_size = 1
    run.optim.warmup_steps = min(run.optim.warmup_steps, 1)
    run.train.update(
        num_steps=2, log_every=1, checkpoint_every=2, eval_every=0, summary_every=0
    )
    return run


def scalars(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "pair, variant", [(pair, variant) for pair in PAIRS for variant in variants(pair)]
)
def test_every_config_trains_on_replicas(archives, tmp_path, pair, variant):
    """What a step reads is the config's own, but for sizes and number of classes."""
    for stage in STAGES:
        run = get_config(f"{pair}_{stage}", variant)
        if run.init.run:
            run.init.run = str(tmp_path / "source")
        if run.teacher.run:
            run.teacher.run = str(tmp_path / "stage1")
        result = train(shrunk(run, archives), tmp_path / stage)
        assert result["step"] == 2 and 0 <= result["miou"] <= 1
        rows = scalars(tmp_path / stage)
        assert len(rows) == 2
        assert all(np.isfinite(row["loss"]) for row in rows)
    assert {"loss_mix", "kept_ratio"} <= scalars(tmp_path / "stage2")[0].keys()


def test_the_released_config_trains_on_replicas(archives, tmp_path):
    source = recipes.resolve(get_config("crosscity"), "source", tmp_path)
    train(shrunk(source, archives), tmp_path / "source")
    run = recipes.resolve(get_config("released"), "stage2", tmp_path)
    run.teacher.run = run.init.run
    assert train(shrunk(run, archives), tmp_path / "stage2")["step"] == 2


def test_a_sweep_trains_and_repeats_nothing(tmp_path):
    def command(*flags):
        return subprocess.run(
            [
                *(sys.executable, "-m", "tufl_jax.sweep"),
                "--config=tests/configs/tiny_sweep.py",
                f"--workdir={tmp_path}",
                *flags,
            ],
            env=child_environment(),
            capture_output=True,
            text=True,
            cwd=CONFIGS.parent,
        )

    done = command("--table=table3", "--rows=row1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[0] == "Table III: the parts of the method"
    # Another table finds the run that both hold; nothing is trained.
    again = command("--table=table1", "--rows=baseline")
    assert again.returncode == 0, again.stderr[-2000:]
    assert again.stderr.count("finished at step 2, nothing to do") == 1
    wrong = command("--table=table9")
    assert wrong.returncode == 1 and "choose one of table1," in wrong.stderr


def test_what_a_sweep_prints(tmp_path, monkeypatch):
    trained = []

    def pretend(config, workdir):
        trained.append(workdir.relative_to(tmp_path).as_posix())
        miou = 0.5 + 0.02 * config.seed
        return {"miou": miou, "miou_13": miou, "iou": {"road": miou, "train": None}}

    flags = {"TABLE": "table3", "ROWS": ["row1", "focal"], "SEEDS": ["0", "1"]}
    flags |= {"WORKDIR": str(tmp_path), "CONFIG": get_config("synthia")}
    for name, value in flags.items():
        monkeypatch.setattr(sweep, name, types.SimpleNamespace(value=value))
    monkeypatch.setattr(recipes.train, "train", pretend)
    monkeypatch.setattr(recipes.startup, "open_data", lambda run: None)
    sweep.main([])
    assert trained == [
        f"seed{seed}/{run}"
        for seed in (0, 1)
        for run in ("source", "stage1-threshold=fixed")
    ]
    lines = (tmp_path / "table3.txt").read_text().splitlines()
    (row,) = [x for x in lines if x.startswith("focal ")]
    assert "45.9" in row and row.count("51.0 ± 1.4") == 2 and row.endswith(" 2")
    with open(tmp_path / "table3.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {r["row"] for r in rows} == {"baseline", "focal"}
    assert [r["paper"] for r in rows if r["score"] == "miou_13"] == ["46.5", "52.6"]
    assert {r["values"] for r in rows if r["score"] == "iou/road"} == {"50.00 52.00"}
    with Image.open(tmp_path / "table3.png") as picture:
        assert picture.size[0] > 300
