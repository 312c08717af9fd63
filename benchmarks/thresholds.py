"""Milliseconds an update of the class thresholds takes, ours and three plain ways.

    pip install '.[bench]'
    python -m benchmarks.thresholds                # 1,048,576 pixels of 19 classes
    python -m benchmarks.thresholds --nostep       # without the train step

One run times the project's radix select, a masked sort per class in JAX, and in PyTorch
the loop over classes as published and one sort of 64-bit keys, all from logits to
thresholds and on the same numbers, and checks that they agree. Then the share of a
BiSeNet stage-1 step that an update takes at --height x --width, 2 + 2 images. Prints
the machine and medians: the time that passed and the processor time, which other
programs disturb less. A ratio is a time over that of the radix select.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave torch some

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import common
from tufl_jax import thresholds

ROUNDS = flags.DEFINE_integer("rounds", 10, "Calls of each.")
HEIGHT = flags.DEFINE_integer("height", 320, "Of the step's images.")
WIDTH = flags.DEFINE_integer("width", 640, "Of the step's images.")
STEP = flags.DEFINE_bool("step", True, "Measure the step.")

CLASSES, MOMENTUM, PROPORTION, POWER = 19, 0.9, 0.8, 8.0


def main(_) -> None:
    """Print the table."""
    print(common.machine())
    logits = make_logits((1, 1024, 1024))
    calls = {
        "radix select (thresholds.update)": jax_method(thresholds.update, logits),
        "sort per class, JAX": jax_method(sort_per_class, logits),
        **torch_methods(logits),
    }
    wanted = None
    for name, call in calls.items():
        wanted = call() if wanted is None else wanted
        np.testing.assert_allclose(call(), wanted, rtol=1e-5, err_msg=name)
    print("\n1,048,576 pixels, 19 classes")
    common.print_table(common.alternate(calls, ROUNDS.value))
    if STEP.value:
        share_of_step()


def make_logits(shape) -> np.ndarray:
    """f32[*shape, 19] with frequent and rare classes, from unsure to saturated."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(*shape, CLASSES)).astype(np.float32)
    sharpness = rng.uniform(0.5, 12, size=(*shape, 1)).astype(np.float32)
    return logits * sharpness - 0.15 * np.arange(CLASSES, dtype=np.float32)


def jax_method(update, logits):
    """A call that returns the new thresholds."""
    step, logits = jax.jit(update), jax.device_put(logits)
    alpha = thresholds.init(CLASSES)
    return lambda: np.asarray(step(alpha, logits))


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


def torch_methods(logits):
    """The same for both ways in PyTorch."""
    import torch

    from benchmarks.peer import losses

    if not torch.cuda.is_available():
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    nchw = torch.from_numpy(np.ascontiguousarray(np.moveaxis(logits, -1, 1)))
    nchw = nchw.to(device)
    alpha = torch.full((CLASSES,), 0.8, device=device)
    valid = torch.ones(nchw[:, 0].shape, dtype=torch.bool, device=device)

    def call(update):
        confidence, labels = losses.predictions(nchw)
        return update(alpha, confidence, labels, valid).cpu().numpy()

    return {
        "loop over classes, PyTorch": lambda: call(losses.update_by_loop),
        "one sort of 64 bits, PyTorch": lambda: call(losses.update_vectorised),
    }


def share_of_step() -> None:
    """The update beside a whole stage-1 step of BiSeNet, 2 + 2 images."""
    config = common.paper_config("bisenet", "stage1")
    size = HEIGHT.value, WIDTH.value
    for spec in (config.data.source, config.data.target):
        spec.crop = size
    training = common.Training(config)
    batch = training.put(common.random_batch(config))
    update = jax_method(thresholds.update, make_logits((2, *size)))
    calls = {"the step": lambda: training(batch), "an update": update}
    for call in calls.values():
        call()
    print(f"\nstage-1 step of BiSeNet, 2 + 2 images of {size[0]} x {size[1]}")
    common.print_table(common.alternate(calls, min(ROUNDS.value, 5)))


if __name__ == "__main__":
    app.run(main)
