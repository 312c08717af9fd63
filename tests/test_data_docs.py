"""The worked example of docs/data.md, followed to the letter."""

import ast
import importlib.util
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from tests import replicas
from tests.tiny import command_module
from tufl_jax import config as config_lib
from tufl_jax import labels, startup, validation
from tufl_jax.data import inspection, layouts, sources

check_data = command_module("check_data")

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "docs/data.md").read_text()
OWN = TEXT.partition("## Your own data")[2].partition("## What is refused")[0]
TREE, CONFIG, COMMANDS = re.findall(r"```(?:python)?\n(.*?)```", OWN, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of the example and own.py."""
    folder = tmp_path_factory.mktemp("own")
    for path in TREE.split():
        image, ids = replicas.picture(path.partition(".")[0], (0, 1, 2, 7, 8))
        replicas.save(folder / path, ids if "/masks/" in path else image)
    (folder / "own.py").write_text(CONFIG)
    return folder


def load(folder):
    spec = importlib.util.spec_from_file_location("own", folder / "own.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def lines(program):
    found = [x for x in COMMANDS.splitlines() if f"tufl_jax.{program} " in x]
    assert found
    return [shlex.split(line) for line in found]


def assert_reads_the_example(config):
    validation.validate(config)
    data = startup.open_data(config)
    assert {name: [x["name"] for x in source] for name, source in data.items()} == {
        "source": ["0001", "0002"],
        "target": ["a/0001", "b/0001"],
        "eval": ["0001"],
    }
    assert "label" not in data["target"][0]
    _, ids = replicas.picture("night/masks/val/0001", (0, 1, 2, 7, 8))
    want = np.array([255, 0, 1, 3, 3, 3, 3, 2, 2])[ids]
    np.testing.assert_array_equal(data["eval"][0]["label"], want)
    batches = startup.open_batches(config, data, None, 0)
    batch = next(batches)
    batches.close()
    assert batch["source_image"].shape == (2, 256, 512, 3)
    assert set(np.unique(batch["source_label"])) <= {0, 1, 2, 255}


def test_config_reads_the_tree(folder, monkeypatch):
    assert COMMANDS.splitlines()[0] == "export DAY=day NIGHT=night"
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DAY", "day")
    monkeypatch.setenv("NIGHT", "night")
    assert_reads_the_example(load(folder))


def test_check_prints_what_the_text_shows(folder):
    (arguments,) = lines("check_data")
    done = subprocess.run(
        [sys.executable, *arguments[1:]],
        cwd=folder,
        env={**os.environ, "DAY": "day", "NIGHT": "night", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    (shown,) = re.findall(r"```text\n(.*?)```", OWN, re.DOTALL)
    assert done.stdout == shown


def test_good_sets_print_what_the_text_shows(tmp_path):
    replicas.cityscapes(tmp_path / "cityscapes", per_split=6)
    replicas.train_extra(tmp_path / "cityscapes", count=6, labelled=False)
    replicas.gta5(tmp_path / "gta5", count=6)
    replicas.synthia(tmp_path / "synthia", count=6)
    replicas.crosscity(tmp_path / "crosscity", train=6, test=6)
    shown = re.findall(r"```text\n(.*?)```", TEXT.partition(OWN)[0], re.DOTALL)
    sets = [part for block in shown for part in re.split(r"\n(?=== )", block)]
    assert len(sets) == 6
    for part in sets:
        name, *city, split = re.match(r"== ([\w ]+) \(", part)[1].split()
        spec = config_lib.base().data.eval
        spec.update(
            name=name, root=str(tmp_path / name), split=split, city="".join(city)
        )
        classes = labels.cityscapes({"synthia": 16, "crosscity": 13}.get(name, 19))
        report = inspection.inspect(spec, classes=classes, labelled=None)
        printed = iter(check_data.text(report).splitlines())
        for line in part.splitlines():
            start = line.removesuffix("...")  # the rest is left out
            assert any(x.startswith(start) for x in printed), line


def test_prepared_as_the_text_says(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (arguments,) = lines("prepare")
    environment = {**os.environ, "DAY": "day", "NIGHT": "night"}
    done = subprocess.run(
        [sys.executable, *arguments[1:]],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    day, night = re.search(r"`DAY=(\S+) NIGHT=(\S+)`", OWN).groups()
    monkeypatch.setenv("DAY", day)
    monkeypatch.setenv("NIGHT", night)
    config = load(folder)
    for domain in ("source", "target", "eval"):
        config_lib.set_key(config, f"data.{domain}.format", "prepared")
    assert_reads_the_example(config)


def test_the_flags_of_the_training_commands_exist(folder):
    for arguments in lines("main"):
        config = load(folder)
        for argument in arguments:
            key, found, value = argument.removeprefix("--config.").partition("=")
            if argument.startswith("--config.") and found:
                config_lib.set_key(config, key, value)
        validation.validate(config)


def test_tables_tell_what_the_code_does():
    for name in sources.NAMES:
        assert f"`{name}`" in TEXT
    for layout in layouts.LAYOUTS.values():
        for split, count in layout.counts.items():
            assert f"`{split}` {count:,}" in TEXT
    odd = layouts.LAYOUTS["gta5"].odd
    assert len(odd) == 62 and {"15188", "17705", "20801", "20860"} <= odd
    for key in re.findall(r"`(resize|scale_width|crop)=(\([^)]*\))", TEXT):
        assert config_lib.base().data.source[key[0]] is None or isinstance(
            ast.literal_eval(key[1]), tuple
        )
    assert labels.SYNTHIA_IDS.keys() == set(range(23))
