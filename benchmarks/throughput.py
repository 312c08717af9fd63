"""Images a second of the input pipeline alone, the train step alone, and the ratio.

    python -m benchmarks.throughput --config configs/demo.py
    python -m benchmarks.throughput --config configs/demo.py --height=512 --width=1024

For every stage of a recipe: does the host feed the step? The step is timed on one batch
that stays on the device. Prints the machine.
"""

import pathlib
import time

from absl import app, flags

from benchmarks import common
from tufl_jax import cli, recipe, startup
from tufl_jax.steps import step as step_lib

CONFIG = cli.define_config()
HEIGHT = flags.DEFINE_integer("height", 0, "Other crop (and street) height.")
WIDTH = flags.DEFINE_integer("width", 0, "Other crop (and street) width.")
SECONDS = flags.DEFINE_float("seconds", 10.0, "How long each part is timed.")


def main(_) -> None:
    """Print one line a stage."""
    config = CONFIG.value
    print(common.machine())
    print(f"{'stage':8} {'crop':>10} {'pipeline':>10} {'step':>10} {'ratio':>6}")
    for name in config.recipe:
        run = recipe.resolve(config, name, pathlib.Path("unused"))
        if HEIGHT.value and WIDTH.value:
            for domain in (run.data.source, run.data.target):
                domain.size = domain.crop = (HEIGHT.value, WIDTH.value)
        pipeline, step = measure(run)
        crop = "{}x{}".format(*run.data.source.crop)
        print(
            f"{name:8} {crop:>10} {pipeline:10.1f} {step:10.1f} {pipeline / step:6.2f}"
        )


def measure(run) -> tuple[float, float]:
    """Images a second (source and target, donors not counted) of pipeline and step."""
    data = startup.open_data(run)
    donors = None
    if run.stage == "stage2":
        donors = startup.open_donors(run, data, None)
    batches = startup.open_batches(run, data, donors, 0)
    try:
        images = sum(
            len(v)
            for k, v in next(batches).items()
            if k in ("source_image", "target_image")
        )
        pipeline = rate(lambda: next(batches))
        batch = next(batches)
    finally:
        batches.close()
    bank = startup.first_bank(run, donors) if donors else None
    training = common.Training(run, bank, step_lib.make_mesh())
    batch = training.put(batch)
    training(batch)
    return images * pipeline, images * rate(lambda: training(batch))


def rate(action) -> float:
    """Calls a second over --seconds, at least three."""
    start, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - start < SECONDS.value:
        action()
        count += 1
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    app.run(cli.guarded(main), flags_parser=cli.parse_flags)
