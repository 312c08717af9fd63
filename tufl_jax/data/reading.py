"""Decoding picture files, and computing items ahead of time."""

import collections
import concurrent.futures
import io
import itertools
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from tufl_jax.errors import UserError

# Pillow's own limit, about 89 million: an RGB picture of that size fills 256 MiB.
# A file that claims more is refused from its header, before memory is asked for.
MAX_PIXELS = Image.MAX_IMAGE_PIXELS
# Pillow warns of what is refused here.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

_PNG = b"\x89PNG\r\n\x1a\n"
_IMAGE_MODES = ("RGB", "RGBA", "L", "P")
_LABEL_MODES = ("L", "P", "I;16", "I", "1")
# How Pillow reads a PNG of three 16-bit channels: the high byte of each. Told that a
# pixel is three bytes and three to skip, it gives both bytes of the first channel.
_HIGH_BYTES, _FIRST_BYTES = "RGB;16B", "RGBXXX"


def read_image(data: bytes, where: str) -> np.ndarray:
    """Decodes a photograph.

    Args:
        data: content of a PNG, JPEG or other 8-bit picture file.
        where: its name, for errors.
    Returns:
        u8[H, W, 3]; grey pictures have three equal channels, transparency is dropped.
    Raises:
        UserError: it is damaged, empty, has 16 bits or more than MAX_PIXELS.
    """
    return _open(data, where, lambda picture: np.asarray(_rgb(picture, where)))


class Photograph:
    """A picture file that is decoded no further than it is looked at.

    A crop rarely reaches the bottom, and a PNG is decoded from the top: a training
    saves a fifth of its decoding. A file that was cut off is noticed all the same.

    Args:
        data, where: as for `read_image`.
    Raises:
        UserError: there is no picture in it; `rows` raises what `read_image` does.
    Attributes:
        shape: (H, W, 3) of the whole picture.
    """

    def __init__(self, data: bytes, where: str):
        self._data, self._where = data, where
        self.shape = (*size(data, where), 3)

    def rows(self, count: int) -> Image.Image:
        """The first `count` rows or more, in mode RGB."""
        whole = count >= self.shape[0] or b"IEND" not in self._data[-64:]
        data = self._data if whole else _top(self._data, count)
        return _open(data, self._where, lambda picture: _rgb(picture, self._where))


def read_ids(data: bytes, where: str) -> np.ndarray:
    """Decodes a label file of one channel; palette files give indices, not colours.

    Args:
        data: content of a PNG file.
        where: its name, for errors.
    Returns:
        Integer ids [H, W], u8 or wider.
    Raises:
        UserError: as `read_image`, and for colour pictures and lossy JPEG.
    """
    return _open(data, where, lambda picture: _ids(picture, where))


def read_synthia_ids(data: bytes, where: str) -> np.ndarray:
    """Decodes a SYNTHIA label: 16 bits and three channels, the first of them the class.

    Files of one channel, as other tools export them, are read as they are. A file
    without any class is refused: that is what readers make of it that keep only the
    high bytes.

    Args, Returns, Raises: as `read_ids`.
    """

    def decode(picture):
        if not _is_16_bit_colour(picture):
            return _ids(picture, where, wanted="SYNTHIA's 16-bit label picture")
        picture.tile = [picture.tile[0]._replace(args=_FIRST_BYTES)]
        high, low = (picture.getchannel(i) for i in range(2))
        if not high.getbbox():  # all zero
            return np.asarray(low)
        return np.asarray(low) + np.asarray(high, np.uint16) * 256

    ids = _open(data, where, decode)
    if not ids.any():
        raise UserError(
            f"{where}: every pixel has id 0 (void): a converter has read only the high "
            "bytes of its 16-bit channels; take the file of the original archive"
        )
    return ids


def _top(data: bytes, rows: int) -> bytes:
    """A PNG whose header says that it has `rows` rows; other files as they are.

    Decoders stop there. Rows of an interlaced PNG are not in the order of the file.
    """
    if data[:8] != _PNG or data[12:16] != b"IHDR" or data[28]:
        return data
    header = data[12:20] + rows.to_bytes(4, "big") + data[24:29]
    checksum = zlib.crc32(header).to_bytes(4, "big")
    return b"".join((data[:12], header, checksum, data[33:]))


def _rgb(picture, where: str) -> Image.Image:
    if picture.mode not in _IMAGE_MODES or _is_16_bit_colour(picture):
        raise UserError(f"{where}: is {_kind(picture)}, expected an 8-bit picture")
    picture.load()
    return picture if picture.mode == "RGB" else picture.convert("RGB")


READ_LABEL = {"ids": read_ids, "synthia": read_synthia_ids}


def write_png(array: np.ndarray, *, compressed: bool = False) -> bytes:
    """A PNG file of u8[H, W, 3] or u8[H, W]; its rows are filtered in any case.

    Without compression it is decoded in a third of the time, and ArrayRecord compresses
    it to the size of an ordinary PNG, which costs less to undo.
    """
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=6 if compressed else 0)
    return file.getvalue()


def size(data: bytes, where: str) -> tuple[int, int]:
    """(height, width) from the header of a picture file; UserError if it has none."""
    return _open(data, where, lambda picture: picture.size[::-1])


def _ids(picture, where: str, *, wanted: str = "a one-channel picture of label ids"):
    if picture.format == "JPEG":
        raise UserError(f"{where}: is a JPEG, which changes ids; expected a PNG file")
    if picture.mode not in _LABEL_MODES:
        raise UserError(f"{where}: is {_kind(picture)}, expected {wanted}")
    ids = np.asarray(picture)
    return ids.astype(np.uint8) if ids.dtype == bool else ids


def _is_16_bit_colour(picture) -> bool:
    return picture.mode == "RGB" and any(t.args == _HIGH_BYTES for t in picture.tile)


def _kind(picture) -> str:
    if _is_16_bit_colour(picture):
        return "a 16-bit colour picture (SYNTHIA's label format)"
    return f"of mode {picture.mode}"


def _open(data: bytes, where: str, decode: Callable):
    if not data:
        raise UserError(f"{where}: is empty (0 bytes); replace it")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise _too_large(where, f"{picture.width}x{picture.height} pixels")
            return decode(picture)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(where, f"more than {2 * MAX_PIXELS} pixels") from None
    # Pillow reports broken files with any of these, depending on where they break.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not a picture file, or broken at its beginning"
        raise UserError(f"{where}: cannot be read ({reason}); replace it") from error


def _too_large(where: str, size: str) -> UserError:
    limit = f"{MAX_PIXELS / 1e6:.0f} million"
    return UserError(f"{where}: has {size}, the limit is {limit}; cut it into parts")


def ordered_map(function: Callable, items: Iterable, *, num_threads: int) -> Iterator:
    """Yields function(item) in order, computed at most 2 * num_threads items ahead.

    An exception of `function` is raised where its result would come. Threads end
    with the generator.
    """
    items = iter(items)
    pool = concurrent.futures.ThreadPoolExecutor(num_threads)
    try:
        waiting = collections.deque(
            pool.submit(function, item)
            for item in itertools.islice(items, 2 * num_threads)
        )
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(
                pool.submit(function, item) for item in itertools.islice(items, 1)
            )
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
