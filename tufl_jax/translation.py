"""Whole data sets in another style."""

import collections
import concurrent.futures
import functools
import json
import pathlib
import zlib
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict
from PIL import Image

from tufl_jax import checkpoint, evaluation, fourier, pictures, startup, windows
from tufl_jax.data import pipeline, translated
from tufl_jax.data.progress import Progress
from tufl_jax.errors import UserError
from tufl_jax.steps import cyclegan

FOLDER = "translated"  # in the workdir of a run
SHEET_ROWS = 6


class NetworkStyle:
    """Source images in the style of the target, by a trained generator.

    An image is brought to config.data.source.resize, as in training, and back. Images
    of other sizes compile another program, but not with config.style.tile.

    Args:
      config: the run's config.
      model: the CycleGAN.
      params: its parameters.
    Attributes:
      batch_size: images that are translated at a time, one a device.
    """

    def __init__(self, config: ConfigDict, model, params: dict):
        self._resize, self._style = config.data.source.resize, config.style
        mesh = Mesh(np.array(jax.local_devices()), ("data",))
        self._split = NamedSharding(mesh, P("data"))
        self._params = jax.device_put(params, NamedSharding(mesh, P()))
        self._generate = jax.jit(functools.partial(_generate, model))
        self.batch_size = len(jax.local_devices())

    def __call__(self, indices: list[int], images: list[np.ndarray]) -> list:
        """u8[H, W, 3] of each of at most `batch_size` images u8[H, W, 3] of one size.

        Args:
          indices: of the images in their set; not used.
          images: as it says.
        """
        size = images[0].shape[:2]
        inner = tuple(self._resize or size)
        missing = self.batch_size - len(images)
        batch = np.stack([_resized(x, inner) for x in images + images[:1] * missing])
        result = np.rint(self._tiles(batch)).astype(np.uint8)
        return [_resized(x, size) for x in result[: len(images)]]

    def _tiles(self, images: np.ndarray) -> np.ndarray:
        """f32[B, H, W, 3] of u8[B, H, W, 3], tile by tile."""
        size, overlap = images.shape[1:3], self._style.overlap
        tile = tuple(map(min, self._style.tile or size, size))
        total = np.zeros(images.shape, np.float32)
        weights = np.zeros((*size, 1), np.float32)
        weight = np.minimum.outer(*(_ramp(side, overlap) for side in tile))[..., None]
        rows, columns = (
            windows.window_starts(full, side, side - overlap)
            for full, side in zip(size, tile, strict=True)
        )
        for top in rows:
            for left in columns:
                part = np.s_[top : top + tile[0], left : left + tile[1]]
                patch = images[:, part[0], part[1]]
                # The generators halve sizes twice.
                more = [(0, 0), *((0, -side % 4) for side in tile), (0, 0)]
                patch = jax.device_put(np.pad(patch, more, "reflect"), self._split)
                new = np.asarray(self._generate(self._params, patch))
                total[:, part[0], part[1]] += weight * new[:, : tile[0], : tile[1]]
                weights[part] += weight
        return total / weights


def _generate(model, params, images):
    """f32[B, H, W, 3] in 0..255 of u8[B, H, W, 3]."""
    images = cyclegan.scaled(images)
    new = model.apply({"params": params}, images, "target", method="translate")
    return cyclegan.pixels(new)


def _ramp(side: int, overlap: int) -> np.ndarray:
    """Weights f32[side] that rise over the overlap at both ends."""
    from_border = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1
    return np.minimum(from_border, overlap + 1).astype(np.float32)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(
        Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
    )


class FourierStyle:
    """Source images with the low frequencies of target images (`fourier.adapt`).

    Args:
      target: a data source; (seed, i) draws the one for source image i.
      beta: see there.
      seed: of the draw.
    """

    batch_size = 1

    def __init__(self, target, *, beta: float, seed: int):
        self._target, self._seed = target, seed
        self._adapt = jax.jit(functools.partial(fourier.adapt, beta=beta))

    def __call__(self, indices: list[int], images: list[np.ndarray]) -> list:
        """As NetworkStyle."""
        result = []
        for index, image in zip(indices, images, strict=True):
            rng = np.random.default_rng([self._seed, index])
            other = self._target[int(rng.integers(len(self._target)))]["image"]
            other = _resized(other, image.shape[:2])
            new = np.asarray(self._adapt(np.float32(image), np.float32(other)))
            result.append(np.rint(np.clip(new, 0, 255)).astype(np.uint8))
        return result


def translate_source(
    config: ConfigDict,
    workdir: pathlib.Path,
    folder: pathlib.Path,
    *,
    beta: float | None = None,
) -> None:
    """Translate all of config.data.source.

    Beside `folder` lie FOLDER.json, how it was made, and FOLDER.png, some of it.
    What is there already is kept: the same call continues one that was stopped.

    Args:
      config: of a run of stage 'cyclegan'; with `beta` any that has a target.
      workdir: of that run; its newest checkpoint is used.
      folder: gets {name}.png for every item.
      beta: translate by FourierStyle instead of the network of the run.

    Raises:
      UserError: the run or data is not there, or the folder holds another translation.
    """
    config = ConfigDict(config.to_dict())
    config.data.source.translated = ""
    source = startup.open_dataset(config, "source", labelled=False)
    target = startup.open_dataset(config, "target", labelled=False)
    spec = config.data.source
    made = {"images": len(source), "seed": config.seed, "data": spec.name}
    if beta is not None:
        style = FourierStyle(target, beta=beta, seed=config.seed)
        made |= {"method": "fda", "beta": beta}
    else:
        model = startup.build_model(config)
        step, variables = startup.load_run(config, model, "workdir", workdir)
        params = variables["params"]
        style = NetworkStyle(config, model, params)
        network = json.dumps(checkpoint.digest(params["generator_target"]))
        made |= {
            "method": "cyclegan",
            "step": step,
            "network": zlib.crc32(network.encode()),
            "resize": spec.resize and list(spec.resize),
            "tile": config.style.tile and [*config.style.tile, config.style.overlap],
        }
    # The first process writes it down before any other looks or makes an image.
    if jax.process_index() == 0:
        _claim(folder, made)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("claimed")
        _claim(folder, made)
    write_set(source, style, folder, num_threads=config.data.num_threads)
    if jax.process_index() == 0:
        sheet = folder.with_name(folder.name + ".png")
        pictures.save_png(contact_sheet(source, target, folder), sheet)
        logging.info("translated images: %s, some of them: %s", folder, sheet)


def _claim(folder: pathlib.Path, made: dict) -> None:
    """Write down how the folder's images are made; refuse one with others."""
    path = translated.description(folder)
    there = json.loads(path.read_text()) if path.exists() else None
    if there is None and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds other files: choose another --output")
    changed = [k for k, v in (there or made).items() if made.get(k) != v]
    if changed:
        raise UserError(
            f"{folder}: holds another translation ({changed[0]}: {there[changed[0]]} "
            f"there, {made.get(changed[0])} here): choose another --output, or delete "
            f"it and {path.name}"
        )
    if there is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        evaluation.write_json(path, made)


def write_set(source, style, folder: pathlib.Path, *, num_threads: int) -> None:
    """Translate this process's images of a source into folder/{name}.png.

    Every file appears whole; those that are there are not made again.

    Args:
      source: a data source; process p of n has every n-th item from p on.
      style: NetworkStyle or FourierStyle.
      folder: created if it is not there.
      num_threads: readers, and writers.
    """

    def path(index):
        return folder / f"{source.name(index)}.png"

    mine = range(jax.process_index(), len(source), jax.process_count())
    left = [i for i in mine if not path(i).exists()]
    progress = Progress("translating", len(mine), done=len(mine) - len(left))
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        waiting = collections.deque()
        for indices, images in _batches(source, left, style.batch_size, num_threads):
            for index, image in zip(indices, style(indices, images), strict=True):
                waiting.append(pool.submit(pictures.save_png, image, path(index)))
            while len(waiting) > 2 * num_threads:
                waiting.popleft().result()
                progress.add()
        for written in waiting:
            written.result()
            progress.add()


def _batches(source, indices, size: int, num_threads: int) -> Iterator[tuple]:
    """(indices, images) of at most `size` images of equal size, in order."""
    numbers, images = [], []
    items = pipeline.read_ahead(source, indices, num_threads=num_threads)
    for index, item in zip(indices, items, strict=True):
        new = item["image"]
        if images and (len(images) == size or new.shape != images[0].shape):
            yield numbers, images
            numbers, images = [], []
        numbers.append(index)
        images.append(new)
    if images:
        yield numbers, images


def contact_sheet(source, target, folder: pathlib.Path) -> Image.Image:
    """Some images, their translations, and target images beside them.

    Of the images of the first process, whose files are all there.
    """
    mine = range(0, len(source), jax.process_count())
    step = max(len(mine) // SHEET_ROWS, 1)
    rows = []
    for i in mine[step // 2 :: step][:SHEET_ROWS]:
        with Image.open(folder / f"{source.name(i)}.png") as picture:
            new = np.asarray(picture)
        rows.append([source[i]["image"], new, target[i % len(target)]["image"]])
    return pictures.contact_sheet(rows, ["source", "translated", "target"])
