"""A train step of each stage against the same step in PyTorch.

    pip install '.[bench]'
    python -m benchmarks.step --model=bisenet
    python -m benchmarks.step --model=deeplabv2
    python -m benchmarks.step --height=128 --width=256 --channels=16 --rounds=5  # a CPU

At the paper's batch and crop unless flags say otherwise. Both sides start from the same
weights (tests/test_peer.py: same loss, same gradients) and get the same batches; their
steps alternate in one process, and the medians are printed. PyTorch is channels_last
with a fused optimiser, on a GPU in bfloat16 autocast and compiled; once with its class
thresholds vectorised and once with the published loop over classes. A ratio is a time
over ours: above 1 we are faster. MFU is the share of the measured matrix rate that the
operations of the convolutions alone reach.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave torch some

import jax.numpy as jnp
from absl import app, flags

from benchmarks import common
from tufl_jax.models import pretrained

MODEL = flags.DEFINE_enum("model", "bisenet", ["bisenet", "deeplabv2"], "Network.")
STAGES = flags.DEFINE_list("stages", ["source", "stage1", "stage2"], "Which.")
HEIGHT = flags.DEFINE_integer("height", 0, "Of the crop; 0: the paper's.")
WIDTH = flags.DEFINE_integer("width", 0, "Of the crop; 0: the paper's.")
BATCH = flags.DEFINE_integer("batch", 2, "Images of each domain.")
CHANNELS = flags.DEFINE_integer("channels", 64, "Of the stem; 64: the paper's.")
DTYPE = flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16"], "Default: bfloat16 on a GPU only."
)
ROUNDS = flags.DEFINE_integer("rounds", 20, "Steps of each side.")
UPDATES = flags.DEFINE_list("updates", ["vectorised", "loop"], "Of PyTorch.")
COMPILE = flags.DEFINE_bool("compile", None, "torch.compile. Default: on a GPU.")


def main(_) -> None:
    """Print a table a stage."""
    import torch

    gpu = common.set_up_torch()
    dtype = DTYPE.value or ("bfloat16" if gpu else "float32")
    peak = common.matrix_rate(jnp.dtype(dtype))
    print(f"{common.machine()}, torch {torch.__version__}, {dtype}")
    print(f"matrix product: {peak / 1e12:.3f} T operations/s")
    for stage in STAGES.value:
        config = common.paper_config(MODEL.value, stage)
        config.model.update(dtype=dtype, width=CHANNELS.value)
        for domain in (config.data.source, config.data.target):
            domain.batch_size = BATCH.value
            height, width = domain.crop
            domain.crop = (HEIGHT.value or height, WIDTH.value or width)
        measure(config, torch, gpu, peak)


def measure(config, torch, gpu: bool, peak: float) -> None:
    """Print the table of one stage."""
    bank = common.random_bank(config) if config.stage == "stage2" else None
    ours = common.Training(config, bank)
    host = common.random_batch(config)
    batch = ours.put(host)
    arrays = pretrained.to_torch(ours.variables, ours.model)
    calls = {"tufl_jax": lambda: ours(batch)}
    for update in UPDATES.value:
        calls[f"PyTorch, {update}"] = peer(config, arrays, bank, host, update, gpu)
    for call in calls.values():
        call()
        call()
    flops = common.step_flops(config, ours.model)
    count, size = BATCH.value, "{} x {}".format(*config.data.source.crop)
    print(
        f"\n{config.model.name} {config.stage}, {count} images a domain of {size}, "
        f"width {config.model.width}: {flops / 1e9:.0f} G operations"
    )
    common.print_table(
        common.alternate(calls, ROUNDS.value),
        common.utilisation(flops, peak),
    )


def peer(config, arrays, bank, host, update, gpu):
    """A call that does a step in PyTorch and waits for it."""
    import torch

    from benchmarks.peer import networks, steps

    device = "cuda" if gpu else "cpu"

    def network():
        made = networks.NETWORKS[config.model.name](19, config.model.width)
        return networks.load(made, arrays).to(device)

    donors = None
    if bank is not None:
        donors = {k: torch.from_numpy(v.copy()).to(device) for k, v in bank.items()}
        donors["image"] = donors["image"].movedim(-1, -3).contiguous()
    step = steps.Step(
        network(),
        config,
        teacher=network() if bank is not None else None,
        bank=donors,
        update=update,
        amp=config.model.dtype == "bfloat16",
        compile=gpu if COMPILE.value is None else COMPILE.value,
    )
    batch = step.put(host)
    if "donor_image" in batch:
        batch["donor_image"] = batch["donor_image"].movedim(-1, -3)

    def call():
        loss = step(batch)
        if gpu:
            torch.cuda.synchronize()
        return loss

    return call


if __name__ == "__main__":
    app.run(main)
