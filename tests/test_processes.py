"""Two real processes train as one does, and none outlives the other."""

import json
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.tiny import child_environment, write_folder
from tufl_jax.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = "--config=tests/configs/tiny_stage1.py"


def start(data, *arguments, **environment):
    """The program as a child process on CPU devices."""
    return subprocess.Popen(
        [sys.executable, "-m", "tufl_jax.main", CONFIG, *map(str, arguments)],
        env=child_environment(TINY_DATA=data, **environment),
        cwd=ROOT,
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )


def start_two(data, *arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        start(
            data,
            *arguments,
            JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}",
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(i),
        )
        for i in range(2)
    ]


def finish(process):
    _, stderr = process.communicate(timeout=1200)
    assert process.returncode == 0, stderr


def newest(workdir):
    return max(
        int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()
    )


def wait_for_step(step, workdir, processes):
    """Until a checkpoint of that step or a later one is there."""
    deadline = time.monotonic() + 1200
    while not any((workdir / "checkpoints" / str(s)).exists() for s in range(step, 20)):
        assert all(p.poll() is None for p in processes), processes[0].communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def final_state(workdir):
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore_variables()
    finally:
        checkpoints.close()


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"))


def test_two_processes_are_one_training(data, tmp_path):
    """Two processes, stopped, continued, one of them killed, continued by one process.

    The result is that of one process with two devices from start to end. The steps are
    small, as in test_steps: a ReLU's kinks make large ones differ by more than rounding
    when the processes have other numbers of threads.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    settings = ["--config.train.num_steps=20", "--config.optim.learning_rate=1e-4"]
    finish(start(data, *settings, f"--workdir={one}", JAX_NUM_CPU_DEVICES="2"))

    processes = start_two(data, *settings, f"--workdir={two}")
    wait_for_step(2, two, processes)
    processes[1].send_signal(signal.SIGTERM)
    outputs = [p.communicate(timeout=600)[1] for p in processes]
    assert [p.returncode for p in processes] == [143, 143], outputs
    assert "run the same command to continue" in outputs[0]
    stopped = newest(two)
    assert 2 <= stopped <= 14

    processes = start_two(data, *settings, f"--workdir={two}")
    wait_for_step(stopped + 2, two, processes)
    processes[1].send_signal(signal.SIGKILL)
    _, stderr = processes[0].communicate(timeout=600)
    processes[1].communicate(timeout=600)
    # It notices in a collective of the step, or while it saves.
    assert processes[0].returncode not in (0, 143)
    assert "another process of this run" in stderr or "another task died" in stderr
    assert newest(two) < 20
    finish(start(data, *settings, f"--workdir={two}", JAX_NUM_CPU_DEVICES="2"))

    step, expected = final_state(one)
    again, state = final_state(two)
    assert step == again == 20
    state = dict(flat(state))
    for key, value in flat(expected):
        np.testing.assert_allclose(state[key], value, rtol=1e-5, atol=1e-6, err_msg=key)
    steps = [
        [
            json.loads(row)["step"]
            for row in (w / "metrics.jsonl").read_text().splitlines()
        ]
        for w in (one, two)
    ]
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_COORDINATOR_ADDRESS"),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "127.0.0.1:1",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "2",
            },
            "JAX_PROCESS_ID is 2",
        ),
    ],
)
def test_wrong_environment_is_one_line(data, tmp_path, environment, message):
    process = start(data, f"--workdir={tmp_path / 'new'}", **environment)
    _, stderr = process.communicate(timeout=600)
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert process.returncode == 1 and len(errors) == 1 and message in errors[0]
    assert not (tmp_path / "new").exists()


def test_launch_scripts_are_valid_shell():
    for script in ("local.sh", "processes.sh", "slurm.sbatch"):
        subprocess.run(["bash", "-n", str(ROOT / "launch" / script)], check=True)


def test_launch_jobset_sets_what_the_program_reads():
    yaml = pytest.importorskip("yaml")  # comes with the libraries, not ours to need
    manifest = yaml.safe_load((ROOT / "launch" / "jobset.yaml").read_text())
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    container = job["template"]["spec"]["containers"][0]
    variables = {entry["name"]: entry for entry in container["env"]}
    assert set(variables) == {
        "JAX_COORDINATOR_ADDRESS",
        "JAX_NUM_PROCESSES",
        "JAX_PROCESS_ID",
    }
    count = int(variables["JAX_NUM_PROCESSES"]["value"])
    assert job["parallelism"] == job["completions"] == count
    name = manifest["metadata"]["name"]
    address = variables["JAX_COORDINATOR_ADDRESS"]["value"]
    assert address.startswith(f"{name}-train-0-0.{name}:")
