"""The files of a data set, in folders or in the zip archives they came in."""

import functools
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator

from tufl_jax.errors import UserError

_PICTURES = r"\.(?i:png|jpe?g)"


class Tree:
    """The files below a folder; zip archives directly in it count as unpacked.

    Args:
        root: the folder.
    Raises:
        UserError: there is no such folder, or an archive in it is damaged.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = pathlib.Path(root)
        if not self.root.is_dir():
            raise UserError(
                f"{self.root}: no such folder; set the data set's root "
                "(--config.data.*.root, or the environment variable in it)"
            )
        self._archives = sorted(self.root.glob("*.zip"))

    def find(self, pattern: str) -> dict[str, str]:
        """{what {name} stands for: path below the root}, sorted, of all matching files.

        Args:
            pattern: a path below the root in which {name} is any path; a last part of
                `{name}.*` takes the picture files: .png, .jpg, .jpeg.
        Raises:
            UserError: two files have one name, a folder cannot be read, or a link
                leads back to a folder above it.
        """
        start = pathlib.PurePosixPath(pattern.partition("{name}")[0] + "x").parent
        matches = re.compile(_regex(pattern)).fullmatch
        found: dict[str, str] = {}
        for path in self._paths(start):
            match = matches(path)
            if not match:
                continue
            name = match["name"]
            if found.setdefault(name, path) != path:
                raise UserError(
                    f"{self.root}: {found[name]} and {path} have one name; remove one"
                )
        return dict(sorted(found.items()))

    def read(self, path: str, count: int = -1) -> bytes:
        """The first `count` bytes of a file, or all; UserError if it cannot be read."""
        try:
            with open(self.root / path, "rb") as file:
                return file.read(count)
        except FileNotFoundError:
            archive = self._members.get(path)
            if archive is None:
                raise UserError(
                    f"{self.root / path}: no such file; restore it"
                ) from None
        except OSError as error:
            raise UserError(
                f"{self.root / path}: cannot be read ({error.strerror})"
            ) from error
        try:
            with _opened(archive).open(path) as file:
                return file.read(count)
        except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise UserError(f"{archive}: {path} in it is damaged ({error})") from error

    def stamp(self, path: str) -> str:
        """Changes when the file does: its size and time, or those of its archive."""
        try:
            stat = (self.root / path).stat()
        except OSError:
            archive = self._members.get(path)
            if archive is None:
                return "absent"
            stat = archive.stat()
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return (self.root / path).exists() or any(
            member == path or member.startswith(path + "/") for member in self._members
        )

    def folders(self, path: str) -> list[str]:
        """Names of the folders directly below one."""
        found = set()
        if (self.root / path).is_dir():
            found = {p.name for p in (self.root / path).iterdir() if p.is_dir()}
        prefix = f"{path}/" if path else ""
        for member in self._members:
            rest = member.removeprefix(prefix)
            if member.startswith(prefix) and "/" in rest:
                found.add(rest.partition("/")[0])
        return sorted(found)

    def __getstate__(self):
        return self.root

    def __setstate__(self, root):
        self.__init__(root)

    @functools.cached_property
    def _members(self) -> dict[str, pathlib.Path]:
        """{path in an archive: the archive}."""
        return {
            name: archive
            for archive in self._archives
            for name in _names(archive)
            if not name.endswith("/")
        }

    def _paths(self, start: pathlib.PurePosixPath) -> Iterator[str]:
        """All files below `start`, a folder on disk before the same one in archives."""
        seen = set()
        for path in _walk(self.root / start, ()):
            seen.add(path.relative_to(self.root).as_posix())
        yield from seen
        prefix = "" if str(start) == "." else f"{start}/"
        yield from (
            member
            for member in self._members
            if member.startswith(prefix) and member not in seen
        )


def _walk(folder: pathlib.Path, above: tuple) -> Iterator[pathlib.Path]:
    try:
        entries = list(os.scandir(folder))
        stat = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        raise UserError(
            f"{folder}: a symbolic link that leads back to a folder above it; remove it"
        )
    for entry in entries:
        if os.path.isdir(entry.path):  # unlike entry.is_dir(), never raises
            yield from _walk(folder / entry.name, (*above, here))
        else:
            yield folder / entry.name


def _regex(pattern: str) -> str:
    before, _, after = pattern.partition("{name}")
    after = _PICTURES if after == ".*" else re.escape(after)
    return re.escape(before) + "(?P<name>.+?)" + after


@functools.lru_cache(maxsize=64)
def _opened(archive: pathlib.Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{archive}: not a whole zip archive ({error}); fetch it again"
        ) from error


def _names(archive: pathlib.Path) -> list[str]:
    return _opened(archive).namelist()
