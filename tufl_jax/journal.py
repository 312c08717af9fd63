"""What an interrupted evaluation has done, one line for each image."""

import json
import pathlib

from absl import logging


class Journal:
    """Results of single images in a file, for the same evaluation started again.

    A line reaches the system before `add` returns: killing the process loses at most
    the line being written, which is dropped when the file is read again.

    Args:
      path: the file; `remove` it when the evaluation is finished.
      fingerprint: of everything the results depend on; a file with another one is
        begun anew.
    """

    def __init__(self, path: pathlib.Path, fingerprint: str):
        self._path = path
        self.entries: dict[int, dict] = {}  # by index of the image
        header = {"fingerprint": fingerprint}
        kept = self._read(header)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "r+b" if kept else "wb")
        if kept:
            self._file.seek(kept)
            self._file.truncate()
            logging.info("%s: continue after %d images", path, len(self.entries))
        else:
            self._write(header)

    def _read(self, header: dict) -> int:
        """Fill `entries`; bytes of the file that can be kept."""
        if not self._path.exists():
            return 0
        good = 0
        for line in self._path.read_bytes().splitlines(keepends=True):
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            if good:
                self.entries[row.pop("index")] = row
            elif row != header:
                logging.info("%s: of another evaluation, begun anew", self._path)
                return 0
            good += len(line)
        return good

    def add(self, index: int, entry: dict) -> None:
        """Keep the result of one image."""
        self.entries[index] = entry
        self._write({"index": index, **entry})

    def _write(self, row: dict) -> None:
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; the results stay for another start."""
        self._file.close()

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        self._path.unlink(missing_ok=True)
