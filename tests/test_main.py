"""The program as users run it: killed, stopped, continued, and given bad input."""

import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny import child_environment, write_folder
from tufl_jax.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parent.parent
RUNS = ("source", "stage1", "stage2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"))


def command(data, *arguments, program="main"):
    """Popen arguments for the program on the CPU."""
    return {
        "args": [sys.executable, "-m", f"tufl_jax.{program}", *map(str, arguments)],
        "env": child_environment(TINY_DATA=data),
        "cwd": ROOT,
        "text": True,
        "stderr": subprocess.PIPE,
        "stdout": subprocess.PIPE,
    }


def run(data, *arguments, program="main", timeout=1200):
    return subprocess.run(**command(data, *arguments, program=program), timeout=timeout)


def stop_when(path, number, data, *arguments):
    """Start, send signal `number` when `path` exists, return exit code and stderr."""
    process = subprocess.Popen(**command(data, *arguments))
    deadline = time.monotonic() + 1200
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(random.random() * 0.3)  # any point of the step, of the save, of the log
    process.send_signal(number)
    _, stderr = process.communicate(timeout=600)
    return process.returncode, stderr


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    config = "tests/configs/tiny_recipe.py"
    result = run(data, "--config", config, "--workdir", workdir)
    assert result.returncode == 0, result.stderr
    return workdir, result


def final_state(workdir):
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore_variables()
    finally:
        checkpoints.close()


def test_recipe_leaves_what_it_promises(uninterrupted):
    workdir, result = uninterrupted
    assert "mIoU" in result.stdout or "miou" in result.stdout
    for name in (*RUNS, "contact_sheet.png", "results.json", "results.txt"):
        assert (workdir / name).exists()
    for name in RUNS:
        evaluation = json.loads((workdir / name / "evaluation.json").read_text())
        assert evaluation["step"] == 8 and evaluation["label_size"] == [64, 128]
        assert evaluation["checkpoint"] == "checkpoints/8"
        assert set(evaluation) >= {"miou", "miou_16", "miou_13", "iou"}
        assert json.loads((workdir / name / "config.json").read_text())["stage"] == name
        rows = (workdir / name / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["step"] for row in rows] == [3, 4, 6, 8]


def test_a_finished_recipe_is_not_run_again(uninterrupted, data):
    workdir, _ = uninterrupted
    before = (workdir / "stage2" / "metrics.jsonl").stat().st_mtime_ns
    config = "tests/configs/tiny_recipe.py"
    result = run(data, "--config", config, "--workdir", workdir)
    assert result.returncode == 0 and "nothing to do" in result.stderr
    assert (workdir / "stage2" / "metrics.jsonl").stat().st_mtime_ns == before


def test_killed_and_stopped_runs_end_bit_identical(uninterrupted, data, tmp_path):
    """SIGTERM in the first stage and SIGKILL in each; then to the end."""
    arguments = ("--config", "tests/configs/tiny_recipe.py", "--workdir", tmp_path)
    watched = tmp_path / "source" / "checkpoints" / "2"
    code, stderr = stop_when(watched, signal.SIGTERM, data, *arguments)
    assert code == 143 and "run the same command to continue" in stderr
    for name in RUNS:
        code, _ = stop_when(
            tmp_path / name / "checkpoints" / "4", signal.SIGKILL, data, *arguments
        )
        assert code == -signal.SIGKILL
    result = run(data, *arguments)
    assert result.returncode == 0, result.stderr
    workdir, _ = uninterrupted
    for name in RUNS:
        for file in ("metrics.jsonl", "evaluation.json"):
            expected = (workdir / name / file).read_bytes()
            assert (tmp_path / name / file).read_bytes() == expected, (name, file)
        step, expected = final_state(workdir / name)
        again, state = final_state(tmp_path / name)
        assert step == again == 8
        assert_equal_trees(state, expected)


def assert_equal_trees(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, dict):
            assert_equal_trees(value, b[key])
        else:
            assert value.tobytes() == b[key].tobytes(), key


def test_evaluate_gives_the_same_numbers(uninterrupted, data):
    workdir, _ = uninterrupted
    result = run(
        data,
        "--config=tests/configs/tiny_source.py",
        f"--workdir={workdir / 'source'}",
        "--output=again.json",
        program="evaluate",
    )
    assert result.returncode == 0, result.stderr
    first, again = (
        json.loads((workdir / "source" / f"{name}.json").read_text())
        for name in ("evaluation", "again")
    )
    assert first == again


def test_errors_are_one_line_and_leave_nothing(uninterrupted, data, tmp_path):
    """Each bad input: exit code 1, one line that names the culprit, no workdir."""
    source = "--config=tests/configs/tiny_source.py"
    workdir, _ = uninterrupted
    hole = write_folder(tmp_path / "hole")
    label = next((hole / "gtFine" / "train" / "town").iterdir())
    label.unlink()
    cases = [
        (data, [source, "--config.optim.learning_rte=1"], "optim.learning_rate"),
        (data, [source, "--config.loss.gama=1"], "config.loss.gamma"),
        (data, [source, "--config.train.num_steps=soon"], "num_steps"),
        (data, ["--config=configs/absent.py"], "configs/absent.py"),
        (data, [], "--config"),
        (data, [source, "extra"], "extra"),
        (tmp_path / "nowhere", [source], "nowhere"),
        (hole, [source], label.name.replace("_gtFine_labelIds.png", "")),
        (data, [source, "--config.data.source.split=tran"], "tran"),
        (
            data,
            ["--config=tests/configs/tiny_recipe.py", "--config.stage=source"],
            "--config.runs.source.stage",
        ),
        (data, [source, "--config.mixing.boundary_size=4"], "boundary_size"),
        (data, [source, "--config.init.run=absent"], "absent"),
        (data, [source, "--config.init.pretrained=absent.pth"], "absent.pth"),
    ]
    for folder, arguments, culprit in cases:
        result = run(folder, *arguments, f"--workdir={tmp_path / 'new'}")
        assert result.returncode == 1, (arguments, result.stderr)
        lines = result.stderr.strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1 and culprit in errors[0], result.stderr
        assert "Traceback" not in result.stderr
        assert not list((tmp_path / "new").rglob("checkpoints/*"))
    other = run(
        data, source, "--config.loss.gamma=3", f"--workdir={workdir / 'source'}"
    )
    assert other.returncode == 1 and "loss.gamma: 2.0 there, 3.0 here" in other.stderr
