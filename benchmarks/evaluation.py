"""Evaluation of a data set end to end against a plain PyTorch loop.

    pip install '.[bench]'
    python -m benchmarks.evaluation --model=bisenet
    python -m benchmarks.evaluation --height=128 --width=256 --channels=16   # a CPU

Pictures and labels are PNG files in the layout of Cityscapes; a round reads them all,
predicts every pixel and counts the confusion matrix. The PyTorch side is what its users
write: a DataLoader with Pillow and a worker process for each core (none on one core),
channels_last, on a GPU bfloat16 autocast and torch.compile, counting on the device.
Both must count the same matrix, but for pixels that rounding moves. A ratio is a time
over ours.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave torch some

import pathlib
import tempfile

import jax
import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks import common
from tests import replicas
from tufl_jax import evaluation, labels, models, startup
from tufl_jax.models import pretrained

MODEL = flags.DEFINE_enum("model", "bisenet", ["bisenet", "deeplabv2"], "Network.")
IMAGES = flags.DEFINE_integer("images", 16, "Of the data set.")
HEIGHT = flags.DEFINE_integer("height", 1024, "Of the images.")
WIDTH = flags.DEFINE_integer("width", 2048, "Of the images.")
CHANNELS = flags.DEFINE_integer("channels", 64, "Of the stem; 64: the paper's.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Evaluations of each side.")


def main(_) -> None:
    """Print the table."""
    import torch

    gpu = common.set_up_torch()
    cores = len(os.sched_getaffinity(0))
    config = common.paper_config(MODEL.value, "source")
    config.model.update(width=CHANNELS.value, dtype="bfloat16" if gpu else "float32")
    config.data.num_threads = cores
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        replicas.cityscapes(
            root,
            splits=("val",),
            per_split=IMAGES.value,
            size=(HEIGHT.value, WIDTH.value),
        )
        config.data.eval.update(name="cityscapes", root=folder, split="val")
        model = startup.build_model(config)
        variables = models.init(model, jax.random.key(0))
        evaluate = evaluation.Evaluator(
            config, model, startup.open_dataset(config, "eval", labelled=True)
        )
        counted = {}

        def ours():
            counted["ours"] = evaluate(variables).confusion

        loop = peer(config, root, pretrained.to_torch(variables, model), gpu, cores)

        def theirs():
            counted["theirs"] = loop()

        calls = {"tufl_jax": ours, "PyTorch": theirs}
        for call in calls.values():
            call()
        moved = np.abs(counted["ours"] - counted["theirs"]).sum() / 2
        print(f"{common.machine()}, torch {torch.__version__}, {config.model.dtype}")
        share = 100 * moved / counted["ours"].sum()
        size = f"{IMAGES.value} images of {HEIGHT.value} x {WIDTH.value}"
        print(f"\n{MODEL.value}, {size}, width {CHANNELS.value}")
        print(f"{share:.3f} % of the pixels are counted elsewhere")
        common.print_table(
            common.alternate(calls, ROUNDS.value),
            {"images/s": lambda wall, used: f"{1000 * IMAGES.value / wall:.1f}"},
        )


def peer(config, root, arrays, gpu: bool, cores: int):
    """A call that evaluates the set in PyTorch and gives i64[C, C]."""
    import torch

    from benchmarks.peer import networks

    device = "cuda" if gpu else "cpu"
    network = networks.NETWORKS[MODEL.value](19, CHANNELS.value)
    network = networks.load(network, arrays).to(device).eval()
    network = network.to(memory_format=torch.channels_last)
    run = torch.compile(network) if gpu else network
    loader = torch.utils.data.DataLoader(
        Files(root),
        batch_size=config.eval.batch_size,
        num_workers=0 if cores == 1 else cores,
        pin_memory=gpu,
    )

    def call():
        confusion = torch.zeros(19 * 19, dtype=torch.long, device=device)
        for images, truth in loader:
            images = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
            truth = truth.to(device, non_blocking=True).long()
            half = torch.autocast(device, torch.bfloat16, enabled=gpu)
            with torch.inference_mode(), half:
                guess = run(networks.normalize(images))[0].argmax(1)
            counted = truth != 255
            cells = 19 * truth[counted] + guess[counted]
            confusion += torch.bincount(cells, minlength=19 * 19)
        return confusion.reshape(19, 19).cpu().numpy()

    return call


class Files:
    """The pictures u8[H, W, 3] and train ids u8[H, W] of a split in PNG files."""

    def __init__(self, root: pathlib.Path):
        self.pictures = sorted(root.glob("leftImg8bit/val/*/*.png"))
        self.table = np.full(256, 255, np.uint8)
        names = labels.class_names(19)
        for raw, name in labels.CITYSCAPES_IDS.items():
            self.table[raw] = names.index(name) if name else 255

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        path = str(self.pictures[index])
        truth = path.replace("_leftImg8bit.png", "_gtFine_labelIds.png")
        truth = truth.replace("leftImg8bit", "gtFine")
        with Image.open(path) as image, Image.open(truth) as ids:
            return np.asarray(image), self.table[np.asarray(ids)]


if __name__ == "__main__":
    app.run(main)
