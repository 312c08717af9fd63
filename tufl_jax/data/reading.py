"""Reading picture files, one by one and ahead of time."""

import collections
import concurrent.futures
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from tufl_jax.errors import UserError


def read_image(path: pathlib.Path) -> np.ndarray:
    """u8[H, W, 3] of an 8-bit picture; UserError if it cannot be read."""
    return _read(path, ("RGB", "RGBA", "L", "P"), "an 8-bit picture", convert="RGB")


def read_label(path: pathlib.Path) -> np.ndarray:
    """Integer ids [H, W] of a grey or palette picture; UserError if it is neither."""
    return _read(path, ("L", "P", "I;16", "I"), "a one-channel picture of label ids")


def _read(path, modes, wanted: str, *, convert: str | None = None) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            if mode in modes:
                return np.asarray(picture.convert(convert) if convert else picture)
    # Pillow reports broken files with any of these, depending on where they break.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}); replace it") from error
    raise UserError(f"{path}: has mode {mode}, expected {wanted}")


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
