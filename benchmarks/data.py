"""Images a second and core of the input pipeline against a PyTorch DataLoader.

    pip install '.[bench]'
    python -m benchmarks.data
    python -m benchmarks.data --images_per_step=4 --steps_per_second=2.5

Both do the same work in the same run: decode picture and label, scale at random, crop,
mirror, map ids to classes, batch as uint8 tensors. The other side is what public
domain-adaptation code does with Pillow: resize the whole picture, then crop; nothing of
it is ours but the id table. Data sets are written at their real sizes from the built-in
streets (camera domain, which has sensor noise), in their official formats; an own
folder is of JPEG photographs. The ratio is of CPU time of one thread each, which other
programs on the machine do not change much, best of --rounds interleaved rounds; behind
it wall-clock time with as many threads (or worker processes) as cores.
"""

import dataclasses
import os
import pathlib
import platform
import tempfile
import time

import numpy as np
import PIL
from absl import app, flags
from ml_collections import ConfigDict
from PIL import Image

from tests import replicas
from tufl_jax import config as config_lib
from tufl_jax import labels
from tufl_jax.data import builders, layouts, pipeline, sources, transforms
from tufl_jax.data.streets import Streets

IMAGES = flags.DEFINE_integer("images", 12, "Pictures of each data set.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Of which the best counts.")
BATCHES = flags.DEFINE_integer("batches", 8, "Of each side in a round.")
BATCH = flags.DEFINE_integer("batch", 4, "Images in a batch.")
STEPS = flags.DEFINE_float("steps_per_second", 0, "Of a training, to be fed.")
PER_STEP = flags.DEFINE_integer("images_per_step", 4, "Source and target together.")

CROP, SCALES = (640, 1280), (0.75, 1.0, 1.25, 1.5)  # the release's
CLASSES = labels.cityscapes(19)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A data set: (height, width), names of its pictures, fields of its config."""

    size: tuple[int, int]
    names: str
    fields: dict


KINDS = {
    "gta5": Kind((1052, 1914), "{:05d}", {"split": "all"}),
    "synthia": Kind((760, 1280), "{:07d}", {"split": "all"}),
    "cityscapes": Kind((1024, 2048), "town/town_{:06d}_000019", {"split": "train"}),
    "crosscity": Kind(
        (1024, 2048), "pano_{:05d}_2_180", {"split": "test", "city": "Rio"}
    ),
    "folder": Kind(
        (1080, 1920),
        "{:04d}",
        {"images": "frames/{name}.jpg", "labels": "masks/{name}.png"},
    ),
}
SETS = flags.DEFINE_list("sets", list(KINDS), "Data sets.")


def main(_) -> None:
    """Print one line for each data set and format."""
    import torch

    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    print(
        f"{platform.processor() or platform.machine()}, {cores} cores; torch "
        f"{torch.__version__}, Pillow {PIL.__version__}; images/s a core, crop "
        f"{CROP[0]}x{CROP[1]}"
    )
    head = ("data set", "size", "format", "ours", "DataLoader", "ratio")
    print("{:10} {:>9} {:>9} {:>8} {:>10} {:>6}".format(*head) + "   wall, all cores")
    for name in SETS.value:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, pathlib.Path(folder), cores)


def compare(name: str, folder: pathlib.Path, cores: int) -> None:
    """Measure one data set, as folders and prepared."""
    spec = ConfigDict(config_lib.base().data.eval.to_dict())
    spec.update(KINDS[name].fields, name=name, root=str(folder / "files"))
    write(spec)
    builders.prepare(spec, root=spec.root, data_dir=folder / "prepared")
    prepared = ConfigDict(spec.to_dict())
    prepared.update(format="prepared", root=str(folder / "prepared"))
    theirs = Theirs(spec)
    runs = {
        "folder": lambda threads: ours(spec, threads),
        "prepared": lambda threads: ours(prepared, threads),
        "torch": lambda workers: loader(theirs, 0 if workers == 1 else workers),
    }
    best = dict.fromkeys(runs, 0.0)
    wall = dict.fromkeys(runs, 0.0)
    for _ in range(ROUNDS.value):
        for key, run in runs.items():
            best[key] = max(best[key], rate(run(1), time.process_time))
            wall[key] = max(wall[key], rate(run(cores), time.monotonic))
    size = "{}x{}".format(*KINDS[name].size)
    for key in ("folder", "prepared"):
        print(
            f"{name:10} {size:>9} {key:>9} {best[key]:8.1f} {best['torch']:10.1f} "
            f"{best[key] / best['torch']:6.2f} {wall[key]:9.1f} {wall['torch']:9.1f} "
            f"{wall[key] / wall['torch']:6.2f}",
            flush=True,
        )
        if STEPS.value:
            needed = STEPS.value * PER_STEP.value
            word = "feeds" if wall[key] >= needed else "does NOT feed"
            print(f"  {word} {STEPS.value} steps/s of {PER_STEP.value} images here")


def rate(batches, clock) -> float:
    """Images a second, after a first batch that starts everything."""
    iterator = iter(batches)
    next(iterator)
    start, count = clock(), 0
    for _ in range(BATCHES.value):
        count += len(next(iterator)["source_image"])
    seconds = clock() - start
    if hasattr(iterator, "close"):
        iterator.close()
    return count / seconds


def ours(spec: ConfigDict, threads: int):
    """Our training batches."""
    source = sources.build(spec, classes=CLASSES, seed=0, labelled=True)
    augment = transforms.Augment(crop=CROP, scales=SCALES)
    domain = pipeline.Domain(source, augment, BATCH.value)
    return pipeline.train_batches(domain, seed=0, num_threads=threads)


class Theirs:
    """The same examples by resizing, cropping and mirroring whole Pillow pictures."""

    def __init__(self, spec: ConfigDict):
        layout = layouts.of_spec(spec, CLASSES)
        self._pairs = [_paths(spec, layout, i) for i in range(IMAGES.value)]
        self._synthia = spec.name == "synthia"
        self._lut = CLASSES.lut(layout.ids)

    def __len__(self) -> int:
        return 1_000_000  # endless, as the other side

    def __getitem__(self, index: int) -> dict:
        import torch

        rng = np.random.default_rng(index)
        image_path, label_path = self._pairs[rng.integers(len(self._pairs))]
        image = Image.open(image_path).convert("RGB")
        label = Image.open(label_path)
        if (
            self._synthia
        ):  # Pillow reads the high bytes of 16 bits, or with this the low
            label.tile = [label.tile[0]._replace(args="RGB;16L")]
            label = label.getchannel(0)
        scale = SCALES[rng.integers(len(SCALES))]
        width, height = image.size
        scale = max(scale, CROP[0] / height, CROP[1] / width)
        size = (round(width * scale), round(height * scale))
        image = image.resize(size, Image.Resampling.BILINEAR)
        label = label.resize(size, Image.Resampling.NEAREST)
        left = int(rng.integers(size[0] - CROP[1] + 1))
        top = int(rng.integers(size[1] - CROP[0] + 1))
        box = (left, top, left + CROP[1], top + CROP[0])
        image, label = image.crop(box), label.crop(box)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            label = label.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        classes = torch.from_numpy(self._lut[np.array(label)])
        return {"source_image": tensor.contiguous(), "source_label": classes}


def _paths(spec: ConfigDict, layout, index: int) -> tuple[str, str]:
    name = KINDS[spec.name].names.format(index + 1)
    patterns = (layout.images.replace(".*", ".png"), layout.labels)
    return tuple(f"{spec.root}/{x}".replace("{name}", name) for x in patterns)


def loader(data: Theirs, workers: int):
    """A DataLoader as it is commonly set up."""
    import torch

    return torch.utils.data.DataLoader(
        data, batch_size=BATCH.value, num_workers=workers, prefetch_factor=None
    )


def write(spec: ConfigDict) -> None:
    """Streets in the official format of a data set, at its size."""
    size = KINDS[spec.name].size
    streets = Streets("camera", length=IMAGES.value, size=size, seed=0, split="train")
    layout = layouts.of_spec(spec, CLASSES)
    to_raw = np.zeros(256, np.uint8)
    for raw, name in layout.ids.items():
        if name in CLASSES.names:
            to_raw[CLASSES.names.index(name)] = raw
    for i in range(len(streets)):
        image, label = streets[i]["image"], to_raw[streets[i]["label"]]
        image_path, label_path = _paths(spec, layout, i)
        replicas.save(image_path, image)
        if spec.name == "gta5":
            palette = np.arange(768).reshape(256, 3) % 256
            replicas.save_palette(label_path, label, palette)
        elif spec.name == "synthia":
            channels = np.stack([label, label // 2, label * 0], -1).astype(np.uint16)
            replicas.save_16_bit(label_path, channels)
        else:
            replicas.save(label_path, label)


if __name__ == "__main__":
    app.run(main)
