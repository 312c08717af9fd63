"""Sliding windows along an axis: what they read of an image and give to a tile.

Plain numbers on the host; inference.py takes them to the device.
"""

import dataclasses

import numpy as np

BUCKET = 64  # pixels; sizes are rounded up to it where that changes no number


@dataclasses.dataclass(frozen=True)
class Span:
    """One window along one axis: what it reads of the image and gives to the tile.

    Attributes:
      start: first pixel of the image that the patch holds.
      patch: length of the patch.
      into: from the patch to the window: for each pixel of the window its lower and
        upper neighbour i32[w] and the weight of the upper f32[w]; None where the
        window is the patch.
      offset: first pixel of the tile that the window may give to.
      out: the same [n] from the window to these pixels of the tile.
      weight: f32[n], 1 / number of windows over each, 0 where this one is not.
    """

    start: int
    patch: int
    into: tuple | None
    offset: int
    out: tuple | None
    weight: np.ndarray

    @property
    def window(self) -> int:
        """Length of the window, in pixels of the network's input."""
        return self.patch if self.into is None else len(self.into[0])

    def arrays(self) -> dict:
        """What the device needs, as a tree; its structure tells the shortcuts."""
        return {
            "into": self.into,
            "out": self.out,
            "offset": np.int32(self.offset),
            "weight": self.weight,
        }


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows over `size` pixels; the last is shifted to fit."""
    last = max(size - window, 0)
    return [*range(0, last, stride), last]


def spans(
    size: int, input_size: int, part: range, tile: int, window: int, stride: int
) -> list[Span]:
    """The windows that give to the pixels `part` of an axis.

    The network's input has its corner pixels on those of the image. A window stands for
    the pixels of the image that lie within half a pixel of its own.

    Args:
      size: pixels of the image.
      input_size: pixels of the network's input, of which windows are cut.
      part: pixels of the image that the tile holds.
      tile: length of the tile, at least that of `part`.
      window, stride: pixels of the network's input; the window shrinks to it.
    """
    window = min(window, input_size)
    starts = window_starts(input_size, window, stride)
    position = np.arange(size) * ((input_size - 1) / max(size - 1, 1))
    covered = [
        (position >= start - 0.5) & (position < start + window - 0.5)
        for start in starts
    ]
    counts = np.sum(covered, axis=0)
    same = input_size == size
    # As many pixels of the image as any window touches, so that all have one shape.
    touched = window * (size - 1) / max(input_size - 1, 1)
    patch = window if same else bucket(int(touched) + 3)
    given = min(patch, tile)
    result = []
    for start, inside in zip(starts, covered, strict=True):
        mine = np.flatnonzero(inside[part.start : part.stop])
        if not len(mine):
            continue
        if same:
            first, into = start, None
        else:
            at = (start + np.arange(window)) * ((size - 1) / max(input_size - 1, 1))
            first = int(at[0])
            into = _taps(at, first, size)
        offset = min(int(mine[0]), tile - given)
        pixels = part.start + offset + np.arange(given)
        real = pixels < part.stop
        pixels = np.where(real, pixels, part.stop - 1)
        weight = np.where(real & inside[pixels], 1 / np.maximum(counts[pixels], 1), 0)
        out = None
        if not (same and given == window and pixels[0] == start):
            out = _taps(position[pixels] - start, 0, window)
        result.append(Span(first, patch, into, offset, out, weight.astype(np.float32)))
    return result


def bucket(pixels: int) -> int:
    """The next multiple of BUCKET."""
    return -(-pixels // BUCKET) * BUCKET


def _taps(position: np.ndarray, first: int, size: int) -> tuple:
    """Both neighbours, counted from pixel `first` of `size`; weight of the upper."""
    position = np.clip(position, 0, size - 1)
    low = np.floor(position).astype(np.int32)
    high = np.minimum(low + 1, size - 1)
    return (
        low - np.int32(first),
        (high - first).astype(np.int32),
        (position - low).astype(np.float32),
    )


def patch(images: np.ndarray, row: Span, column: Span) -> np.ndarray:
    """u8[B, patch, patch, 3]; what lies beyond the images is black and never read."""
    rows = slice(row.start, row.start + row.patch)
    columns = slice(column.start, column.start + column.patch)
    patch = images[:, rows, columns]
    missing = (row.patch - patch.shape[1], column.patch - patch.shape[2])
    if any(missing):
        patch = np.pad(patch, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
    return patch
