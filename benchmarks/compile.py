"""Seconds until a train step is ready: cold, and with the persistent cache.

    python -m benchmarks.compile                                  # DeepLabV2, stage 2
    python -m benchmarks.compile --model=bisenet --stages=source,stage1,stage2

The first of two new processes finds an empty cache, the second what the first left
there. Nothing is read or computed: the step is compiled from shapes at the paper's
sizes. 'compile' is in the warm process what reading the program back takes. CPU seconds
are those of all threads; the clock also counts what other programs took.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from absl import app, flags

MODEL = flags.DEFINE_enum("model", "deeplabv2", ["bisenet", "deeplabv2"], "Network.")
STAGES = flags.DEFINE_list("stages", ["stage2"], "Which.")
CHILD = flags.DEFINE_string("child", "", "One stage, in this process; prints JSON.")
PARTS = ("import", "trace", "lower", "compile")


def main(_) -> None:
    """Print two rows a stage."""
    if CHILD.value:
        print(json.dumps(measure(CHILD.value)))
        return
    from benchmarks import common

    print(common.machine())
    titles = ["", *(f"{part}, CPU s" for part in PARTS), "in all", "in all, clock"]
    print("| " + " | ".join(titles) + " |")
    print("|---" + "|--:" * (len(titles) - 1) + "|")
    for stage in STAGES.value:
        with tempfile.TemporaryDirectory() as cache:
            for kind in ("cold", "warm"):
                wall, used = child(stage, cache)
                seconds = [*used, sum(used), sum(wall)]
                cells = [f"{MODEL.value} {stage}, {kind}"]
                cells += [f"{x:.1f}" for x in seconds]
                print("| " + " | ".join(cells) + " |", flush=True)


def child(stage: str, cache: str) -> tuple[list[float], list[float]]:
    """Seconds and CPU seconds of the parts, in a process with this cache."""
    command = [sys.executable, "-m", "benchmarks.compile", f"--child={stage}"]
    done = subprocess.run(
        [*command, f"--model={MODEL.value}"],
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(stage: str) -> tuple[list[float], list[float]]:
    """Compile one step and take the time of each part."""
    marks = [(time.perf_counter(), time.process_time())]

    def mark():
        marks.append((time.perf_counter(), time.process_time()))

    from benchmarks import common
    from tufl_jax import cli, cost

    cli.collect_rarely()
    mark()
    traced = cost.trace_step(common.paper_config(MODEL.value, stage))
    mark()
    lowered = traced.lower()
    mark()
    lowered.compile()
    mark()
    steps = zip(marks[1:], marks, strict=False)
    parts = [[b - a for b, a in zip(*pair, strict=True)] for pair in steps]
    return tuple(map(list, zip(*parts, strict=True)))


if __name__ == "__main__":
    app.run(main)
