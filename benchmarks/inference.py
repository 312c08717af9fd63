"""Classes of one image, 1024 x 2048, against the same network in PyTorch.

    pip install '.[bench]'
    python -m benchmarks.inference --model=bisenet
    python -m benchmarks.inference --model=deeplabv2
    python -m benchmarks.inference --height=256 --width=512 --rounds=5   # a CPU

From a float32 image on the device to class ids there. The same weights, calls in turn,
medians; the ids of both sides are compared first. PyTorch is channels_last in inference
mode, on a GPU in bfloat16 autocast and compiled. A ratio is a time over ours.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave torch some

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import common
from tufl_jax import augment, cost, models
from tufl_jax.models import pretrained

MODEL = flags.DEFINE_enum("model", "bisenet", ["bisenet", "deeplabv2"], "Network.")
HEIGHT = flags.DEFINE_integer("height", 1024, "Of the image.")
WIDTH = flags.DEFINE_integer("width", 2048, "Of the image.")
BATCH = flags.DEFINE_integer("batch", 1, "Images at once.")
CHANNELS = flags.DEFINE_integer("channels", 64, "Of the stem; 64: the paper's.")
ROUNDS = flags.DEFINE_integer("rounds", 20, "Calls of each side.")


def main(_) -> None:
    """Print the table."""
    import torch

    gpu = common.set_up_torch()
    dtype = "bfloat16" if gpu else "float32"
    model = models.build(
        MODEL.value, num_classes=19, width=CHANNELS.value, dtype=jnp.dtype(dtype)
    )
    variables = models.init(model, jax.random.key(0))
    shape = BATCH.value, HEIGHT.value, WIDTH.value, 3
    images = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    theirs = peer(pretrained.to_torch(variables, model), images, gpu)
    variables, images = jax.device_put((variables, images))
    run = jax.jit(lambda v, x: jnp.argmax(model.apply(v, augment.normalize(x))[0], -1))

    def ours():
        return jax.block_until_ready(run(variables, images))

    same = np.mean(np.asarray(ours()) == theirs().cpu().numpy())
    flops = 2 * BATCH.value * cost.multiplications(model, shape[1:3])
    peak = common.matrix_rate(jnp.dtype(dtype))
    print(f"{common.machine()}, torch {torch.__version__}, {dtype}")
    print(f"matrix product: {peak / 1e12:.3f} T operations/s")
    size = f"{shape[0]} x {shape[1]} x {shape[2]}, width {CHANNELS.value}"
    print(f"\n{MODEL.value}, {size}: {flops / 1e9:.0f} G operations")
    print(f"{100 * same:.2f} % of the pixels have the same class")
    common.print_table(
        common.alternate({"tufl_jax": ours, "PyTorch": theirs}, ROUNDS.value),
        common.utilisation(flops, peak),
    )


def peer(arrays, images, gpu: bool):
    """A call that gives class ids in PyTorch and waits for them."""
    import torch

    from benchmarks.peer import networks

    device = "cuda" if gpu else "cpu"
    network = networks.NETWORKS[MODEL.value](19, CHANNELS.value)
    network = networks.load(network, arrays).to(device).eval()
    network = network.to(memory_format=torch.channels_last)
    run = torch.compile(network) if gpu else network
    images = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)

    def call():
        with (
            torch.inference_mode(),
            torch.autocast(device, torch.bfloat16, enabled=gpu),
        ):
            ids = run(networks.normalize(images))[0].argmax(1)
        if gpu:
            torch.cuda.synchronize()
        return ids

    return call


if __name__ == "__main__":
    app.run(main)
