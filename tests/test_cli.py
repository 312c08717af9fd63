"""What the commands share, beyond what the tests of each command see."""

import platform
import subprocess
import sys

import pytest

from tests.tiny import child_environment

FAULTS = """
import resource
import jax
import jax.numpy as jnp
from tufl_jax import cli
if {keep}:
    cli.keep_memory()
work = jax.jit(lambda x: jnp.sort(jnp.outer(x, x), axis=0).sum())
x = jnp.arange(4096.0)
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*, keep: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)],
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_the_work_space_of_a_step_is_kept():
    """64 MiB and more are 16384 pages, touched again by each step or not at all."""
    assert page_faults(keep=False) > 16000
    assert page_faults(keep=True) < 200
