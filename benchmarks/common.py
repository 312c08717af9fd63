"""What the benchmarks share: the machine, timing, a step with its state."""

import os
import platform
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tufl_jax import cli, cost, models, startup, steps
from tufl_jax import config as config_lib
from tufl_jax import state as state_lib
from tufl_jax.steps import step as step_lib
from tufl_jax.steps.common import Context


def machine() -> str:
    """One line: processor, cores that this process may use, device."""
    cores = len(os.sched_getaffinity(0))
    name = platform.processor() or platform.machine()
    return f"{name}, {cores} cores, {jax.devices()[0]}, jax {jax.__version__}"


def alternate(
    calls: dict[str, Callable], rounds: int
) -> dict[str, tuple[float, float]]:
    """Median (milliseconds, processor milliseconds) of each call.

    Every round runs each of them once, in turn: what else the machine does meets all
    alike. A call returns when its work is done; it has run before.
    """
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start, used = time.perf_counter(), time.process_time()
            call()
            times[name].append(
                (time.perf_counter() - start, time.process_time() - used)
            )
    return {
        name: tuple(1000 * statistics.median(x) for x in zip(*values, strict=True))
        for name, values in times.items()
    }


def print_table(times: dict[str, tuple[float, float]], extra: dict | None = None):
    """A markdown row for each call; ratios are its times over those of the first.

    `extra` is {title: function of (milliseconds, processor milliseconds) -> cell}.
    """
    titles = ["", "ms", "ratio", "CPU ms", "ratio", *(extra or {})]
    print("| " + " | ".join(titles) + " |")
    print("|---" + "|--:" * (len(titles) - 1) + "|")
    first = next(iter(times.values()))
    for name, (wall, used) in times.items():
        cells = [name]
        for value, best in zip((wall, used), first, strict=True):
            cells += [f"{value:.1f}", f"{value / best:.2f}"]
        cells += [column(wall, used) for column in (extra or {}).values()]
        print("| " + " | ".join(cells) + " |", flush=True)


def on_gpu() -> bool:
    """Whether JAX found one."""
    return jax.devices()[0].platform == "gpu"


def set_up_torch() -> bool:
    """Whether both sides have a GPU; else torch gets a thread for each of our cores.

    Also turns the compilation cache on, logging off, which would be timed, and lets
    both sides keep their memory between steps as the commands do.
    """
    import torch

    logging.set_verbosity(logging.WARNING)
    cli.keep_memory()
    cli.set_up_compilation_cache()
    if torch.cuda.is_available() and on_gpu():
        torch.backends.cudnn.benchmark = True
        return True
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return False


def paper_config(model: str, stage: str) -> ConfigDict:
    """The paper's training: 2 + 2 images of 640 x 1280, or for DeepLabV2 512 x 896."""
    config = config_lib.base()
    config.stage, config.model.name = stage, model
    if stage == "stage2":
        config.teacher.run = "unused"
    if model == "deeplabv2":
        for domain in (config.data.source, config.data.target):
            domain.crop = (512, 896)
    return config


def random_batch(config: ConfigDict, seed: int = 0) -> dict[str, np.ndarray]:
    """A host batch of config.stage: noise, with labels in blocks of 32 pixels."""
    rng = np.random.default_rng(seed)
    batch = {}
    for name, like in cost.abstract_batch(config).items():
        top = 256 if name.endswith("image") else config.num_classes
        batch[name] = rng.integers(0, top, like.shape).astype(like.dtype)
        if name.endswith("label"):
            small = batch[name][:, ::32, ::32].repeat(32, 1).repeat(32, 2)
            batch[name] = small[:, : like.shape[1], : like.shape[2]]
    return batch


def random_bank(config: ConfigDict) -> dict[str, np.ndarray]:
    """A full bank of donors for stage 2: the crops of one batch."""
    counts = config.num_classes, config.mixing.donors_per_class
    batch = random_batch(config, seed=1)
    image, label = batch["donor_image"][0], batch["donor_label"][0]
    return {
        "image": np.broadcast_to(image, (*counts, *image.shape)),
        "label": np.broadcast_to(label, (*counts, *label.shape)),
        "available": np.ones(counts, bool),
    }


class Training:
    """A run's step and state, on one device or `mesh`; `training(batch)` does one.

    Attributes:
      model, variables: the network and what it started with.
    """

    def __init__(self, config: ConfigDict, bank: dict | None = None, mesh=None):
        self.model = startup.build_model(config)
        optimizer, _ = startup.build_optimizer(config, self.model)
        self.mesh = mesh or step_lib.make_mesh(jax.devices()[:1])
        self.variables = models.init(self.model, jax.random.key(0))
        stage = steps.STAGES[config.stage]
        state = state_lib.create(
            self.variables,
            optimizer,
            num_classes=config.num_classes,
            initial_threshold=config.thresholds.init,
            metrics=stage.METRICS,
            teacher=self.variables if config.stage == "stage2" else None,
            donors=bank,
        )
        self.state = step_lib.replicate(state, self.mesh)
        self.step = step_lib.make_train_step(
            stage.loss_fn, Context(config, self.model), optimizer, self.mesh
        )

    def put(self, batch: dict) -> dict:
        """A host batch on the device."""
        return step_lib.put_batch(batch, self.mesh)

    def __call__(self, batch: dict) -> None:
        """One step, waited for."""
        self.state, _ = self.step(self.state, batch)
        jax.block_until_ready(self.state.step)


def step_flops(config: ConfigDict, model) -> int:
    """Floating-point operations of a step's convolutions: forward once, backward twice.

    What remat computes again does not count, as is usual for a model's utilisation.
    """
    views = {"source": 0, "stage1": 2, "stage2": 3}[config.stage]
    targets = config.data.target.batch_size
    passes = 3 * (config.data.source.batch_size + views * targets)
    if config.stage == "stage2":
        passes += targets  # the teacher
    size = tuple(config.data.source.crop)
    return 2 * passes * cost.multiplications(model.clone(axis_name=None), size)


def matrix_rate(dtype) -> float:
    """Operations a second of the best matrix product measured here.

    On a CPU, a second of processor time: the rate of a core, whoever else uses it.
    """
    side = 8192 if on_gpu() else 1024
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(lambda a: a @ a)
    clock = time.perf_counter if on_gpu() else time.process_time
    jax.block_until_ready(product(x))

    def once():
        start = clock()
        jax.block_until_ready(product(x))
        return clock() - start

    return 2 * side**3 / min(once() for _ in range(10))


def utilisation(flops: int, rate: float) -> dict[str, Callable]:
    """The column of `print_table` with the share of `matrix_rate` that is reached."""

    def cell(wall, used):
        return f"{100 * flops / (wall if on_gpu() else used) * 1000 / rate:.0f}"

    return {"MFU %": cell}
