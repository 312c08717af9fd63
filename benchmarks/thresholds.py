"""Milliseconds an update of the class thresholds takes, ours and two plain ways.

    python benchmarks/thresholds.py                # 1,048,576 pixels of 19 classes
    python benchmarks/thresholds.py --no-step      # without the train step

One run times the project's radix select, a masked sort per class in JAX, and the loop
over classes in PyTorch as published (pip install 'tufl-jax[bench]'; left out where
torch is not installed), all from logits to thresholds and on the same numbers, and
checks that they agree. Then the share of a BiSeNet stage-1 step that an update takes at
--height x --width, 2 + 2 images. Prints the machine, and of each the best of --rounds:
the time that passed and the processor time, which other programs disturb less.
"""

import argparse
import math
import os
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np

from tufl_jax import config as config_lib
from tufl_jax import models, startup, steps, thresholds
from tufl_jax import state as state_lib
from tufl_jax.steps import step as step_lib
from tufl_jax.steps.common import Context

CLASSES, MOMENTUM, PROPORTION, POWER = 19, 0.9, 0.8, 8.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--no-step", action="store_true")
    args = parser.parse_args()
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.processor() or platform.machine()}, {cores} cores, {device}")
    logits = make_logits((1, 1024, 1024))
    title = "1,048,576 pixels, 19 classes"
    print(f"{title:34} {'ms':>9} {'ratio':>6} {'CPU ms':>9} {'ratio':>6}")
    methods = {
        "radix select (thresholds.update)": jax_method(thresholds.update),
        "sort per class, JAX": jax_method(sort_per_class),
    }
    loop = torch_method(cores)
    if loop:
        methods["loop over classes, PyTorch"] = loop
    results, times = {}, {}
    for name, method in methods.items():
        run = method(logits)
        results[name] = run()
        rounds = args.rounds if name.startswith(("radix", "loop")) else 2
        times[name] = milliseconds(run, rounds)
    ours = next(iter(results))
    for name, value in results.items():
        np.testing.assert_allclose(value, results[ours], rtol=1e-5, err_msg=name)
        both = zip(times[name], times[ours], strict=True)
        print(f"{name:34}", *(f"{x:9.1f} {x / best:6.1f}" for x, best in both))
    if not args.no_step:
        share_of_step(args.height, args.width, args.rounds)


def make_logits(shape) -> np.ndarray:
    """f32[*shape, 19] with frequent and rare classes, from unsure to saturated."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(*shape, CLASSES)).astype(np.float32)
    sharpness = rng.uniform(0.5, 12, size=(*shape, 1)).astype(np.float32)
    return logits * sharpness - 0.15 * np.arange(CLASSES, dtype=np.float32)


def jax_method(update):
    """logits -> a call that returns the new thresholds."""
    step = jax.jit(update)

    def prepare(logits):
        on_device = jax.device_put(logits)
        alpha = thresholds.init(CLASSES)
        return lambda: np.asarray(step(alpha, on_device))

    return prepare


def sort_per_class(alpha, logits):
    """Eq. 8-9 with a masked sort for each class."""
    p = jax.nn.softmax(logits.reshape(-1, CLASSES))
    confidence, labels = jnp.max(p, -1), jnp.argmax(p, -1)

    def one(c):
        own = labels == c
        ordered = -jnp.sort(jnp.where(own, -confidence, 0.0))
        count = jnp.sum(own)
        share = PROPORTION * jnp.exp((alpha[c] - 1) * POWER)
        index = jnp.minimum((share * count).astype(jnp.int32), count - 1)
        new = MOMENTUM * alpha[c] + (1 - MOMENTUM) * ordered[index]
        return jnp.where(count > 0, new, alpha[c])

    return jax.lax.map(one, jnp.arange(CLASSES))


def torch_method(cores: int):
    """The same for the loop over classes in PyTorch; None without torch."""
    try:
        import torch
    except ImportError:
        print("torch is not installed: its loop is left out")
        return None
    torch.set_num_threads(cores)
    on = "cuda" if torch.cuda.is_available() else "cpu"

    def prepare(logits):
        nchw = torch.from_numpy(np.ascontiguousarray(np.moveaxis(logits, -1, 1)))
        nchw = nchw.to(on)

        def update():
            alpha = np.full(CLASSES, 0.8)
            with torch.no_grad():
                confidence, labels = torch.softmax(nchw, dim=1).max(dim=1)
                for c in range(CLASSES):
                    values = confidence[labels == c]
                    if len(values) == 0:
                        continue
                    values, _ = torch.sort(values, descending=True)
                    share = PROPORTION * math.exp((alpha[c] - 1) * POWER)
                    item = values[min(int(share * len(values)), len(values) - 1)]
                    alpha[c] = MOMENTUM * alpha[c] + (1 - MOMENTUM) * item.item()
            return alpha

        return update

    return prepare


def share_of_step(height: int, width: int, rounds: int) -> None:
    """The update beside a whole stage-1 step of BiSeNet, 2 + 2 images."""
    config = config_lib.base()
    config.stage = "stage1"
    for spec in (config.data.source, config.data.target):
        spec.crop = (height, width)
    model = startup.build_model(config)
    optimizer, _ = startup.build_optimizer(config, model)
    mesh = step_lib.make_mesh(jax.devices()[:1])
    state = state_lib.create(
        models.init(model, jax.random.key(0)),
        optimizer,
        num_classes=CLASSES,
        initial_threshold=config.thresholds.init,
        metrics=steps.STAGES["stage1"].METRICS,
    )
    state = step_lib.replicate(state, mesh)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, (2, height, width), dtype=np.uint8)
    batch = {"source_image": images, "source_label": labels, "target_image": images}
    batch = step_lib.put_batch(batch, mesh)
    step = step_lib.make_train_step(
        steps.STAGES["stage1"].loss_fn, Context(config, model), optimizer, mesh
    )

    def one():
        nonlocal state
        state, _ = step(state, batch)
        jax.block_until_ready(state.step)

    one()
    whole, whole_cpu = milliseconds(one, min(rounds, 5))
    update = jax_method(thresholds.update)(make_logits((2, height, width)))
    update()
    part, part_cpu = milliseconds(update, rounds)
    print(f"\nstage-1 step of BiSeNet, 2 + 2 images of {height} x {width}:")
    print(f"  the step    {whole:9.1f} ms {whole_cpu:9.1f} CPU ms")
    print(f"  an update   {part:9.1f} ms {part_cpu:9.1f} CPU ms")
    shares = 100 * part / whole, 100 * part_cpu / whole_cpu
    print(f"  its share   {shares[0]:9.2f} %  {shares[1]:9.2f} %")


def milliseconds(call, rounds: int) -> tuple[float, float]:
    """Least time and least processor time of a call, which has run before."""
    times = []
    for _ in range(rounds):
        start, used = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start, time.process_time() - used))
    return tuple(1000 * min(column) for column in zip(*times, strict=True))


if __name__ == "__main__":
    main()
