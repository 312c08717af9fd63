"""Every config of the paper is valid, and rows differ as they say."""

import pathlib
import runpy
import subprocess
import sys

import pytest

from tufl_jax import config as config_lib
from tufl_jax import paper, paper_recipes, recipe, startup, validation
from tufl_jax.errors import UserError

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
