"""The class of every pixel: scales, mirror images, sliding windows and tiles.

Class probabilities are averaged at the size of the image: over the windows that cover a
pixel, then over the views (scales, each with its mirror image). A window's logits are
resized to the image's pixels before the softmax, so the whole image in one view is the
protocol of one forward pass, and nothing else needs code of its own.

What is kept of a large image at any time is one tile of probabilities and one window:
neither the picture nor its class probabilities are ever on the device as a whole. A
window that touches several tiles is computed for each of them.

Only the network sees exact sizes. Padding its input would not be exact: the global
mean of BiSeNet's context path and of DeepLabV2's attention, and convolutions near the
border, see the padding. (A BiSeNet trained on the streets changed the class of 30 % of
the pixels when 90 x 180 images were padded to 128 x 192 with the mean colour.) All
other arrays are padded to multiples of `windows.BUCKET`, which changes nothing; so with
`eval.resize` or `eval.window` images of many sizes share compilations, and without both
there is one for each size.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from tufl_jax import augment, windows

_MANY_SIZES = 32  # of the network's input; programs of more are not kept


@dataclasses.dataclass(frozen=True)
class Tile:
    """Part of the images of one batch.

    Attributes:
      rows, columns: slices of the images.
      prediction: u8[B, h, w] on the device; h and w may exceed the slices.
      probabilities: f32[B, h, w, C].
    """

    rows: slice
    columns: slice
    prediction: jax.Array
    probabilities: jax.Array


class Predictor:
    """Applies one network as config.eval says; see the module's docstring.

    Args:
      config: the run's config.
      model: the network.
    """

    def __init__(self, config: ConfigDict, model):
        self._eval = config.eval
        self._mesh = Mesh(np.array(jax.local_devices()), ("data",))
        self._sizes: set = set()
        self._add = jax.jit(
            functools.partial(_add_window, model, config.model.normalization),
            static_argnames=("mirror", "tile"),
            donate_argnums=1,
        )
        self._decide = jax.jit(lambda total: jnp.argmax(total, -1).astype(jnp.uint8))
        devices = len(jax.local_devices())
        self.batch_size = -(-config.eval.batch_size // devices) * devices

    def put(self, batch):
        """Arrays [B, ...] split over the devices."""
        return jax.device_put(batch, NamedSharding(self._mesh, P("data")))

    def replicate(self, tree):
        """The same on all devices."""
        return jax.device_put(tree, NamedSharding(self._mesh, P()))

    def __call__(self, variables: dict, images: np.ndarray) -> Iterator[Tile]:
        """Predict a batch, tile by tile.

        Args:
          variables: {'params', 'batch_stats'}, from `replicate`.
          images: u8[B, H, W, 3] on the host, B a multiple of the devices.
        """
        size = images.shape[1:3]
        views = [
            (self._input_size(size, scale), mirror)
            for scale in self._eval.scales
            for mirror in ((False, True) if self._eval.flip else (False,))
        ]
        whole = self._eval.window is None
        tile = size if whole else tuple(self._eval.tile)
        for top in range(0, size[0], tile[0]):
            for left in range(0, size[1], tile[1]):
                part = [
                    range(start, min(start + side, full))
                    for start, side, full in zip((top, left), tile, size, strict=True)
                ]
                total = self._total(variables, images, part, views)
                rows, columns = (slice(x.start, x.stop) for x in part)
                yield Tile(rows, columns, self._decide(total), total)

    def _input_size(self, size, scale: float) -> tuple[int, int]:
        height, width = self._eval.resize or size
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _total(self, variables, images, part, views):
        """Mean class probabilities f32[B, h, w, C] of one tile."""
        total = None
        exact = self._eval.window is None and self._eval.resize is None
        tile = tuple(len(x) if exact else windows.bucket(len(x)) for x in part)
        for input_size, mirror in views:
            rows, columns = (
                windows.spans(
                    images.shape[i + 1], input_size[i], part[i], tile[i], *limits
                )
                for i, limits in enumerate(self._limits(input_size))
            )
            for row in rows:
                for column in columns:
                    self._note_size((row.window, column.window))
                    patch = windows.patch(images, row, column)
                    share = np.float32(1 / len(views))
                    total = self._add(
                        variables,
                        total,
                        self.put(patch),
                        row.arrays(),
                        column.arrays(),
                        share,
                        mirror=mirror,
                        tile=tile,
                    )
        return total

    def _limits(self, input_size) -> list[tuple[int, int]]:
        """(window, stride) along both axes."""
        if self._eval.window is None:
            return [(side, side) for side in input_size]
        window = tuple(self._eval.window)
        # 5 / 6 of the window, as released
        stride = self._eval.stride or tuple(-(-side * 5 // 6) for side in window)
        return list(zip(window, stride, strict=True))

    def _note_size(self, size: tuple[int, int]) -> None:
        self._sizes.add(size)
        if len(self._sizes) <= _MANY_SIZES:
            return
        logging.warning(
            "the network was compiled for %d sizes of its input: set config.eval.resize"
            " or config.eval.window to give it one",
            _MANY_SIZES,
        )
        self._add.clear_cache()
        self._decide.clear_cache()
        self._sizes.clear()


def _add_window(
    model, mode, variables, total, patch, row, column, share, *, mirror, tile
) -> jax.Array:
    """`total` plus a window's share of the class probabilities.

    Args:
      model, variables: the network.
      mode: input convention, see augment.normalize.
      total: f32[B, h, w, C], or None for zeros.
      patch: u8[B, p, q, 3].
      row, column: `Span.arrays`.
      share: of the view among all.
      mirror: whether the network sees the mirror image.
      tile: (h, w).
    """
    x = patch.astype(jnp.float32)
    x = _interpolate(_interpolate(x, row["into"], 1), column["into"], 2)
    x = augment.normalize(x, mode=mode)
    x = x[:, :, ::-1] if mirror else x
    logits = model.apply(variables, x, train=False)[0].astype(jnp.float32)
    logits = logits[:, :, ::-1] if mirror else logits
    logits = _interpolate(_interpolate(logits, row["out"], 1), column["out"], 2)
    weight = share * row["weight"][:, None] * column["weight"]
    given = jax.nn.softmax(logits) * weight[..., None]
    if total is None and given.shape[1:3] == tile:
        return given
    if total is None:
        total = jnp.zeros((len(given), *tile, given.shape[-1]), jnp.float32)
    start = (0, row["offset"], column["offset"], 0)
    before = jax.lax.dynamic_slice(total, start, given.shape)
    return jax.lax.dynamic_update_slice(total, before + given, start)


def _interpolate(x, taps, axis: int):
    """Linear interpolation along an axis; `taps` as in `windows.Span`."""
    if taps is None:
        return x
    low, high, fraction = taps
    shape = [1] * x.ndim
    shape[axis] = -1
    fraction = fraction.reshape(shape)
    low, high = jnp.take(x, low, axis), jnp.take(x, high, axis)
    return low * (1 - fraction) + high * fraction
