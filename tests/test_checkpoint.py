"""Damage is noticed, and the newest good checkpoint is used."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from tufl_jax.checkpoint import DAMAGED, FOLDER, Checkpoints, digest
from tufl_jax.errors import UserError


@struct.dataclass
class State:
    step: jax.Array
    params: dict
    batch_stats: dict
    thresholds: jax.Array
    teacher: None = None


def make_state(step):
    rng = np.random.default_rng(step)
    return State(
        step=jnp.int32(step),
        params={"conv": jnp.asarray(rng.standard_normal((64, 64)), jnp.float32)},
        batch_stats={"bn": jnp.asarray(rng.standard_normal(16), jnp.float32)},
        thresholds=jnp.full(19, 0.1 * step, jnp.float32),
    )


@pytest.fixture
def workdir(tmp_path):
    """Steps 1 and 2, saved and closed."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        checkpoints.save(make_state(step))
    checkpoints.wait()
    checkpoints.close()
    return tmp_path


def restore(workdir):
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore(make_state(0))
    finally:
        checkpoints.close()


def assert_is(state, step):
    jax.tree.map(np.testing.assert_array_equal, state, make_state(step))


def data_files(workdir, step):
    """Files that hold arrays, largest first."""
    files = [
        p for p in (workdir / FOLDER / str(step) / "state").rglob("*") if p.is_file()
    ]
    return sorted(files, key=lambda p: -p.stat().st_size)


def test_newest_is_restored_exactly(workdir):
    assert_is(restore(workdir), 2)


def test_none_in_a_new_workdir(tmp_path):
    assert restore(tmp_path) is None


def test_flipped_byte_falls_back(workdir, caplog):
    file = data_files(workdir, 2)[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)
    assert_is(restore(workdir), 1)
    assert (workdir / DAMAGED / "2").is_dir()
    assert "step 2 is damaged" in caplog.text and "step 1" in caplog.text


@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_lost_file_falls_back(workdir, how):
    for file in data_files(workdir, 2)[:2]:
        if how == "missing":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:20])
    assert_is(restore(workdir), 1)


def test_the_damaged_step_can_be_saved_again(workdir):
    for file in data_files(workdir, 2):
        file.unlink()
    checkpoints = Checkpoints(workdir)
    assert_is(checkpoints.restore(make_state(0)), 1)
    checkpoints.save(make_state(2))
    checkpoints.wait()
    checkpoints.close()
    assert_is(restore(workdir), 2)


def test_all_damaged_is_an_error_that_names_them(workdir):
    for step in (1, 2):
        for file in data_files(workdir, step):
            file.unlink()
    with pytest.raises(UserError, match=r"no usable checkpoint.*step 2.*step 1"):
        restore(workdir)
    assert (workdir / FOLDER / "2").is_dir()  # nothing is thrown away


def test_variables_without_knowing_the_state(workdir):
    checkpoints = Checkpoints(workdir)
    step, variables = checkpoints.restore_variables()
    checkpoints.close()
    assert step == 2
    np.testing.assert_array_equal(
        variables["params"]["conv"], make_state(2).params["conv"]
    )


def test_digest_sees_one_bit():
    state = make_state(3)
    flipped = np.array(state.params["conv"])
    flipped.view(np.uint32)[5, 5] ^= 1
    other = state.replace(params={"conv": flipped})
    before, after = digest(state), digest(other)
    assert [k for k in before if before[k] != after[k]] == ["params/conv"]


def test_full_disk_is_one_line_and_keeps_the_earlier_one(tmp_path):
    """A limit on the size of files stands in for a full disk."""
    script = f"""
import resource, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent.parent)!r})
from tests.test_checkpoint import make_state, assert_is
from tufl_jax.checkpoint import Checkpoints
from tufl_jax.errors import UserError
checkpoints = Checkpoints({str(tmp_path)!r})
checkpoints.save(make_state(1))
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
try:
    checkpoints.save(make_state(2))
    checkpoints.wait()
except UserError as error:
    assert len(str(error).splitlines()) == 1
    print("refused:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
again = Checkpoints({str(tmp_path)!r})
assert_is(again.restore(make_state(0)), 1)
print("step 1 restored")
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600
    )
    assert "refused: a checkpoint could not be saved" in result.stdout, result.stderr
    assert "free some space" in result.stdout
    assert "step 1 restored" in result.stdout
