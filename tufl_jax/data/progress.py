"""Log lines that say how far a long pass over a data set is."""

import os
import threading
import time

from absl import logging

_SECONDS = 10


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Progress:
    """Counts items from any thread and logs every ten seconds.

    Args:
        what: the first words of a line.
        total: items in all.
        done: items that were done before.
    """

    def __init__(self, what: str, total: int, *, done: int = 0):
        self._what, self._total, self._first, self._done = what, total, done, done
        self._start = self._last = time.monotonic()
        self._lock = threading.Lock()

    def add(self) -> None:
        """One more item is done."""
        with self._lock:
            self._done += 1
            now = time.monotonic()
            if now < self._last + _SECONDS:
                return
            self._last = now
            speed = (self._done - self._first) / (now - self._start)
            left = int((self._total - self._done) / speed)
        logging.info(
            "%s: %d of %d, %.1f a second, %d:%02d left",
            *(self._what, self._done, self._total, speed, left // 60, left % 60),
        )
