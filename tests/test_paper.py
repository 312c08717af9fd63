"""Every config of the paper is valid; rows differ as they say; a toy sweep."""

import csv
import json
import pathlib
import runpy
import subprocess
import sys

import pytest
from PIL import Image

from tests import replicas
from tufl_jax import config as config_lib
from tufl_jax import paper, paper_recipes, recipe, startup, validation
from tufl_jax.errors import UserError
from tufl_jax.train import train

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
STAGES = ("source", "stage1", "stage2", "oracle")
PAIRS = ("synthia", "gta5", "crosscity")


def get_config(name, *variant):
    """What --config configs/NAME.py:VARIANT gives."""
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](*variant)


def variants(pair):
    cities = paper_recipes.CITIES if pair == "crosscity" else ("",)
    for city in cities:
        for network in paper_recipes.NETWORKS:
            yield "/".join(filter(None, (city, network)))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("stage", STAGES)
def test_every_config_is_valid(pair, stage):
    for variant in variants(pair):
        run = get_config(f"{pair}_{stage}", variant)
        validation.validate(run)
        startup.build_model(run)
        assert run.stage == ("source" if stage == "oracle" else stage)
        assert run.num_classes == {"synthia": 16, "gta5": 19, "crosscity": 13}[pair]
        whole = get_config(pair, variant)
        again = recipe.resolve(whole, stage, pathlib.Path("runs"))
        for other in (run, again):  # where the others are is all that differs
            other.init.run = other.teacher.run = ""
        assert run == again


def test_default_workdirs_of_sibling_files():
    run = get_config("synthia_stage2")
    assert (run.init.run, run.teacher.run) == (
        "runs/synthia_source",
        "runs/synthia_stage1",
    )
    run = get_config("crosscity_stage2", "Rome/deeplab")
    assert run.teacher.run == "runs/crosscity_stage1/Rome/deeplab"


def test_numbers_that_the_paper_gives():
    run = get_config("synthia_stage2")
    assert run.optim.learning_rate == 0.5e-5 and run.train.num_steps == 20_000
    assert (run.loss.lambda_u, run.loss.lambda_m, run.loss.gamma) == (0.05, 1, 2)
    assert run.data.target.split == "train_extra"
    source = get_config("gta5_source")
    assert source.data.source.crop == (1000, 1000)
    assert source.data.source.batch_size == 12
    assert source.optim.learning_rate == 2.5e-4
    assert source.data.source.translated == "runs/cyclegan_gta5/translated"
    deep = get_config("gta5_source", "deeplab")
    assert deep.data.source.translated == "" and deep.data.target.split == "train"


def test_released_config_is_valid():
    for city in paper_recipes.CITIES:
        whole = get_config("released", city)
        for name in whole.recipe:
            run = recipe.resolve(whole, name, pathlib.Path("runs"))
            validation.validate(run)
        assert run.loss.lambda_u == 0.08 and run.thresholds.update_per == "head"
        assert run.loss.class_weights[-1] == 2 * 10.154
        assert len(run.loss.class_weights) == 13


@pytest.mark.parametrize("name", paper.TABLES)
def test_rows_change_what_they_say(name):
    base = paper.paper_base(name)
    config, runs = paper.recipe_of(base, name)
    seen = set()
    for row, run in runs.items():
        entry = paper.table(name).rows[row]
        trained = recipe.resolve(config, run, pathlib.Path("runs"))
        validation.validate(trained)
        plain = config_lib.run_config(base, entry.stage)
        for key, value in config_lib.flatten(trained.to_dict()):
            if key in entry.changes:
                assert value == entry.changes[key]
            elif key not in ("init.run", "teacher.run"):
                assert value == dict(config_lib.flatten(plain.to_dict()))[key], key
        numbers = paper.printed(name, row)
        assert set(numbers) <= set(entry.metrics)
        assert bool(numbers) == bool(entry.line)
        seen.add(tuple(numbers.items()))
    assert config.recipe[0] == "source"


def test_printed_numbers():
    assert paper.printed("table3", "mixing") == {"miou_16": 52.2, "miou_13": 59.1}
    assert paper.printed("table2", "neutral") == {"miou": 49.5}
    assert paper.printed("table5", "a0.9_b0.8_d10")["miou_13"] == 53.4
    assert paper.printed("table6", "shannon_0.4") == {"miou_13": 50.6}
    assert paper.printed("table6", "focal_dynamic") == {"miou_13": 55.7}
    assert paper.printed("table1_deeplab", "stage2")["miou_16"] == 58.4


def test_the_same_training_is_the_same_run_in_every_table():
    def runs(name):
        return paper.recipe_of(paper.paper_base(name), name)[1]

    fixed = runs("table3")["focal"]
    assert fixed == runs("table4")["gamma2"] == runs("table5")["fixed"]
    assert fixed == runs("table6")["focal_0.8"] == runs("figure7")["focal_0.05"]
    assert runs("table5")["a0.9_b0.8_d8"] == runs("table3")["threshold"] == "stage1"


@pytest.mark.parametrize(
    "table, row, message",
    [
        ("table8", "row1", "no table 'table8': choose one of table1"),
        ("table3", "row5", "no row 'row5': choose row1 to row4 or one of baseline"),
        ("table4", "gama1", "gamma1, gamma2"),
    ],
)
def test_wrong_rows_are_refused(table, row, message):
    with pytest.raises(UserError, match=message):
        paper.row_names(table, [row])


def test_a_wrong_row_on_the_command_line_is_one_line():
    for variant, message in (
        ("paper.py:table3/row9", "no row 'row9': choose row1 to row4 or one of"),
        ("crosscity_stage1.py:Paris", "'Paris' is not one of synthia, gta5, Rio"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "tufl_jax.main", f"--config=configs/{variant}"],
            capture_output=True,
            text=True,
            cwd=CONFIGS.parent,
        )
        (line,) = done.stderr.splitlines()
        assert done.returncode == 1 and line.startswith("error: ") and message in line


def test_wrong_networks_and_cities_are_refused():
    with pytest.raises(UserError, match="'vgg' is not one of bisenet, deeplab"):
        paper_recipes.recipe("gta5", "vgg")
    with pytest.raises(UserError, match="'Paris'.*synthia, gta5, Rio, Rome"):
        paper_recipes.recipe("Paris")


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Replicas of the data sets, with 'translated' SYNTHIA images."""
    root = tmp_path_factory.mktemp("archives")
    replicas.synthia(root / "synthia", count=4)
    rgb = root / "synthia/RAND_CITYSCAPES/RGB"
    rgb.with_name("RGB_translated").symlink_to(rgb)
    replicas.cityscapes(root / "cityscapes", per_split=4)
    replicas.train_extra(root / "cityscapes", count=4)
    replicas.crosscity(root / "crosscity", train=4, test=4)
    return root


def shrunk(run, root):
    """A config of the paper at the size of the replicas, two steps long."""
    if run.data.source.translated:
        run.data.source.translated = str(
            root / "synthia/RAND_CITYSCAPES/RGB_translated"
        )
    for spec in (run.data.source, run.data.target, run.data.eval):
        spec.root = str(root / {"gta5": "gta5"}.get(spec.name, spec.name))
    for spec in (run.data.source, run.data.target):
        spec.crop = (32, 64)
        spec.batch_size = 1
        spec.resize = None if spec.resize is None else (32, 64)
        spec.scale_width = (64, 96) if spec.scale_width else ()
    run.model.width = 8
    run.init.pretrained = ""
    run.mixing.min_pixels = 1
    run.eval.batch_size = 1
    run.optim.warmup_steps = min(run.optim.warmup_steps, 1)
    run.train.update(
        num_steps=2, log_every=1, checkpoint_every=2, eval_every=0, summary_every=0
    )
    return run


def test_configs_train_on_replicas(archives, tmp_path):
    whole = get_config("synthia")
    for stage in whole.recipe:
        run = shrunk(recipe.resolve(whole, stage, tmp_path), archives)
        result = train(run, tmp_path / stage)
        assert result["step"] == 2
    lines = (tmp_path / "stage2/metrics.jsonl").read_text().splitlines()
    assert all(key in json.loads(lines[0]) for key in ("loss_mix", "kept_ratio"))


def test_the_released_config_trains_on_replicas(archives, tmp_path):
    run = recipe.resolve(get_config("released"), "stage2", tmp_path)
    run = shrunk(run, archives)
    source = recipe.resolve(get_config("released"), "source", tmp_path)
    train(shrunk(source, archives), tmp_path / "source")
    run.teacher.run = run.init.run
    assert train(run, tmp_path / "stage2")["step"] == 2


def sweep(workdir, *flags):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tufl_jax.sweep",
            "--config=tests/configs/tiny_sweep.py",
            f"--workdir={workdir}",
            *flags,
        ],
        capture_output=True,
        text=True,
        cwd=CONFIGS.parent,
    )


def test_a_sweep_trains_prints_and_repeats_nothing(tmp_path):
    done = sweep(tmp_path, "--table=table3", "--rows=row1,focal", "--seeds=0,1")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[0] == "Table III: the parts of the method"
    (row,) = [x for x in lines if x.startswith("focal ")]
    assert "45.9" in row and "±" in row and row.endswith(" 2")
    with open(tmp_path / "table3.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {r["row"] for r in rows} == {"baseline", "focal"}
    assert [r["paper"] for r in rows if r["score"] == "miou_13"] == ["46.5", "52.6"]
    assert any(r["score"] == "iou/road" for r in rows)
    with Image.open(tmp_path / "table3.png") as picture:
        assert picture.size[0] > 300
    folders = sorted(p.name for p in (tmp_path / "seed0").iterdir())
    assert folders == ["source", "stage1-threshold=fixed"]
    # Another table finds the run that both hold; nothing is trained.
    again = sweep(tmp_path, "--table=table5", "--rows=fixed", "--seeds=0")
    assert again.returncode == 0, again.stderr[-2000:]
    assert again.stderr.count("finished at step 2, nothing to do") == 2
    wrong = sweep(tmp_path, "--table=table9")
    assert wrong.returncode == 1 and "choose one of table1," in wrong.stderr
