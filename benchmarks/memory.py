"""Memory of the paper's DeepLabV2 stage 2 (2 + 2 images of 512 x 896) per setting.

    python -m benchmarks.memory
    python -m benchmarks.memory --compile

The first column is what autodiff keeps between forward and backward pass, before a
compiler computes some of it again; it is traced and takes seconds. --compile adds what
this machine's compiler plans for the whole step - state, teacher, losses, work space -
and how long it took.
"""

import itertools
import time

import jax
from absl import app, flags

from benchmarks import common
from tufl_jax import cost, startup

COMPILE = flags.DEFINE_boolean("compile", False, "Compile every step, too.")
ONLY = flags.DEFINE_list("only", [], "dtype, remat, accumulate: one setting alone.")
DTYPES = ("float32", "bfloat16")
REMAT = ("none", "norms", "blocks")


def main(_) -> None:
    """Print a row a setting."""
    print(f"{jax.devices()[0].platform}, jax {jax.__version__}")
    print("| dtype | remat | accumulate | kept GiB | step GiB | compile s |")
    print("|---|---|---|---|---|---|")
    settings = list(itertools.product(DTYPES, REMAT, (1, 2)))
    if ONLY.value:
        dtype, remat, accumulate = ONLY.value
        settings = [(dtype, remat, int(accumulate))]
    for dtype, remat, accumulate in settings:
        config = common.paper_config("deeplabv2", "stage2")
        config.model.dtype, config.model.remat = dtype, remat
        config.train.accumulate = accumulate
        cells = [dtype, remat, accumulate]
        kept = cost.kept_for_backward(config, startup.build_model(config))
        cells.append(f"{kept / cost.GIB:.1f}")
        if COMPILE.value:
            start = time.monotonic()
            compiled = cost.compile_step(config)
            cells.append(f"{cost.program_memory(compiled) / cost.GIB:.1f}")
            cells.append(f"{time.monotonic() - start:.0f}")
        else:
            cells += ["", ""]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    app.run(main)
