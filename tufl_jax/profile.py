"""What a network costs, beside the paper's Table VII.

    python -m tufl_jax.profile --config configs/camvid_stage2.py
    python -m tufl_jax.profile --config configs/demo.py --run stage2 --repeats=0
    python -m tufl_jax.profile --config configs/demo.py --config.model.name=deeplabv2

Multiplications are counted in the traced program, so they take seconds for a network of
any size. Inference is compiled and timed on this machine (--repeats=0: left out), and
the train steps of stages 1 and 2 are compiled for their memory (--notrain: left out).
Nothing is trained. The memory is what the compiler of this machine plans; other kinds
of devices plan otherwise.
"""

import csv
import os
import pathlib
import platform
import statistics
import time

import jax
import jax.numpy as jnp
from absl import app, flags, logging
from ml_collections import ConfigDict

from tufl_jax import cli, cost, models, startup, validation
from tufl_jax import config as config_lib
from tufl_jax.errors import UserError

CONFIG = cli.define_config()
RUN = flags.DEFINE_string("run", None, "Of a recipe: the run whose network is meant.")
SIZE = flags.DEFINE_list("size", ["1024", "2048"], "Height and width of the image.")
REPEATS = flags.DEFINE_integer("repeats", 5, "Timed inferences; 0: none.", 0)
TRAIN = flags.DEFINE_boolean("train", True, "Compile train steps for their memory.")
PAPER = pathlib.Path(__file__).parent / "tables" / "table7_profile.csv"


def main(_) -> None:
    """Print the table of --config."""
    config = CONFIG.value
    if config.recipe:
        if RUN.value not in config.recipe:
            names = ", ".join(config.recipe)
            raise UserError(f"this config is a recipe: say --run, one of {names}")
        config = config_lib.run_config(config, RUN.value)
    validation.validate(config)
    try:
        height, width = map(int, SIZE.value)
    except ValueError:
        raise UserError(f"--size={','.join(SIZE.value)}: not HEIGHT,WIDTH") from None
    model = startup.build_model(config)
    ours = network(model, (height, width))
    if REPEATS.value:
        ours |= inference(model, (height, width), REPEATS.value)
    if TRAIN.value:
        for stage in ("stage1", "stage2"):
            logging.info("compiling the step of %s", stage)
            ours[f"{stage}_memory"] = (
                cost.program_memory(cost.compile_step(staged(config, stage))) / cost.GIB
            )
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, {jax.devices()[0]}")
    print(
        f"this: {config.model.name}, {config.num_classes} classes, {height} x {width}; "
        "the paper's: 19 classes, 1024 x 2048, 3090 cards"
    )
    print("\n".join(lines(ours)))


def staged(config: ConfigDict, stage: str) -> ConfigDict:
    """The config with another stage and everything else as it is."""
    config = ConfigDict(config.to_dict())
    config.stage = stage
    config.teacher.run = config.teacher.run or "any"  # only its shapes are needed
    config.data.target.crop = config.data.source.crop
    config.data.target.batch_size = config.data.source.batch_size
    validation.validate(config)
    return config


def network(model, image_size: tuple[int, int]) -> dict[str, float]:
    """Multiplications in G, parameters in M and the weights on disk in MB."""
    shapes = models.shapes(model)
    return {
        "macs": cost.multiplications(model, image_size) / 1e9,
        "params": sum(x.size for x in jax.tree.leaves(shapes["params"])) / 1e6,
        "disk": cost.size_of(shapes) / 1e6,
    }


def inference(model, image_size: tuple[int, int], repeats: int) -> dict[str, float]:
    """Median time of one image in ms, and the program's memory in GiB."""
    variables = jax.device_put(models.init(model, jax.random.key(0)))
    images = jnp.zeros((1, *image_size, 3))
    compiled = (
        jax.jit(lambda v, x: jnp.argmax(model.apply(v, x)[0], -1))
        .lower(variables, images)
        .compile()
    )

    def once():
        start = time.perf_counter()
        jax.block_until_ready(compiled(variables, images))
        return time.perf_counter() - start

    once()
    seconds = statistics.median(once() for _ in range(repeats))
    return {
        "inference_time": 1000 * seconds,
        "inference_memory": cost.program_memory(compiled) / cost.GIB,
    }


def lines(ours: dict[str, float]) -> list[str]:
    """The table: a row a quantity, this network and the paper's three."""
    with open(PAPER, newline="") as file:
        paper = {row["quantity"]: row for row in csv.DictReader(file)}
    units = {name: row["unit"] for name, row in paper.items()}
    units |= {name: "GiB" for name in ours if name.endswith("_memory")}
    others = list(next(iter(paper.values())))[2:]
    titles = [name.replace("ours_", "paper_") for name in others]
    out = [f"{'':18}{'':>5}{'this':>10}" + "".join(f"{x:>17}" for x in titles)]
    for name in ours:
        values = [paper.get(name, {}).get(x, "-") for x in others]
        out.append(
            f"{name:18}{units[name]:>5}{ours[name]:10.2f}"
            + "".join(f"{x:>17}" for x in values)
        )
    return out


if __name__ == "__main__":
    app.run(cli.guarded(main), flags_parser=cli.parse_flags)
