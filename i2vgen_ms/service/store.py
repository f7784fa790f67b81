"""Store: the folder of a service's results. What a service that ended badly left there is removed by the next one.

Each process has a folder of its own below the given one, and holds a lock in it; a folder with our mark in its lock,
which is free, is nobody's any more. Nothing else is ever removed. It does not know what the files are.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from i2vgen_ms.errors import OutputError
from i2vgen_ms.weights.memory import cache_folder

try:
    import fcntl
except ImportError:  # where open files cannot be removed, which serves as well
    fcntl = None  # type: ignore[assignment]

PREFIX = "i2vgen-ms-service-"
GUARD = f".{PREFIX}lock"  # stays: who takes it must not find another file under its name
_LOCK = "i2vgen-ms.lock"
_MARK = b"i2vgen_ms: a folder of results, removed when its process has ended\n"


class Store:
    """A new, empty folder for files, until `close`.

    Args:
        root: the folder below which it is made; None takes this package's cache folder.
    Raises: OutputError where nothing can be written.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        place = cache_folder() / "service" if root is None else Path(root)
        try:
            place.mkdir(parents=True, exist_ok=True)
            with _locked(place / GUARD):
                _remove_abandoned(place)
                self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))  # for this user alone
                self._lock = (self.folder / _LOCK).open("wb", buffering=0)
                _take(self._lock)
                self._lock.write(_MARK)
        except OSError as error:
            raise OutputError(f"results cannot be kept in {str(place)!r}: {error.strerror or error}") from error

    def path(self, name: str) -> Path:
        """Where a file of that name belongs."""
        return self.folder / name

    def remove(self, path: Path) -> None:
        """Removes a file, if it is there."""
        with contextlib.suppress(OSError):
            path.unlink()

    def close(self) -> None:
        """Removes the folder with all that is in it."""
        self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _remove_abandoned(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        if folder.is_dir() and not folder.is_symlink() and _abandoned(folder / _LOCK):
            shutil.rmtree(folder, ignore_errors=True)


def _abandoned(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            if file.read(len(_MARK) + 1) != _MARK:
                return False
            if fcntl is None:
                file.close()
                lock.unlink()
                return True
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False  # held, or not of a service


def _take(file: IO[bytes]) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time, so that no folder is taken for abandoned before its lock is held."""
    with path.open("wb") as file:
        _take(file)
        yield
