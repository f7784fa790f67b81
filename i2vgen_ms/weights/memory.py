"""What is already known of weight files, remembered so that it is found out once.

A file is recognised by its size, its modification time in nanoseconds and its inode; what is remembered is its sha256,
for which sets of tensors it was checked, and what sha256 the hub's list gave it. The memory is one small JSON file in
the user's cache folder; losing it costs time, and the hub's word. It opens no weight file and needs no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MAX_ENTRIES = 500
_MAX_BYTES = 4 * 2**20
_VERSION = 1


def cache_folder() -> Path:
    """Where this package keeps what it can make again: $I2VGEN_MS_CACHE, else i2vgen_ms in the user's cache folder."""
    chosen = os.environ.get("I2VGEN_MS_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "i2vgen_ms"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one file: where it was, its sha256, and the sets of tensors that were checked."""

    path: str
    sha256: str
    checked: tuple[str, ...] = ()


class Memory:
    """The remembered entries, in one JSON file that is read and replaced as a whole.

    A missing or damaged file counts as empty and is rewritten. When it cannot be written, one warning says so.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path) if path is not None else cache_folder() / "verified.json"

    def recall(self, stat: os.stat_result) -> Entry | None:
        """What is known of the file with this size, modification time and inode."""
        return self._read()[0].get(identity(stat))

    def remember(self, stat: os.stat_result, entry: Entry) -> None:
        """Keeps `entry` for the file with this size, modification time and inode, and forgets files that are gone."""

        def change(entries: dict[str, Entry], listed: dict[str, str]) -> None:
            entries.pop(identity(stat), None)
            entries[identity(stat)] = entry

        self._update(change)

    def expect(self, path: str | os.PathLike[str], sha256: str) -> None:
        """Keeps what the hub's list says of the file at `path`, which was just found to be so."""
        place = Path(path).resolve()
        stat = place.stat()

        def change(entries: dict[str, Entry], listed: dict[str, str]) -> None:
            listed.pop(str(place), None)
            listed[str(place)] = sha256.lower()
            known = entries.pop(identity(stat), None)
            same = known is not None and known.sha256 == sha256.lower()
            entries[identity(stat)] = known if known and same else Entry(str(place), sha256.lower())

        self._update(change)

    def expected(self, path: str | os.PathLike[str]) -> str | None:
        """The sha256 that the hub's list gave the file at `path`; None for files that came from elsewhere."""
        return self._read()[1].get(str(Path(path).resolve()))

    def _update(self, change: Callable[[dict[str, Entry], dict[str, str]], None]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path.parent):  # what another process remembers meanwhile is not lost
                entries, listed = self._read()
                entries = {key: known for key, known in entries.items() if _current(key, known)}
                listed = {path: sha256 for path, sha256 in listed.items() if os.path.exists(path)}
                change(entries, listed)
                self._write(dict(list(entries.items())[-MAX_ENTRIES:]), dict(list(listed.items())[-MAX_ENTRIES:]))
        except OSError as error:
            warnings.warn(
                f"{self.path}: cannot be written ({error.strerror or error}), so weight files are checked again at "
                "every load; set I2VGEN_MS_CACHE to a folder that can be written",
                stacklevel=2,
            )

    def _write(self, entries: dict[str, Entry], listed: dict[str, str]) -> None:
        files = {key: asdict(known) for key, known in entries.items()}
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"version": _VERSION, "files": files, "listed": listed}, file, indent=1)
            os.replace(name, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

    def twin(self, path: str | os.PathLike[str]) -> Path:
        """The first file known to hold the same bytes as `path`, so that both share their pages; else `path` itself."""
        path = Path(path)
        try:
            known = self.recall(path.stat())
        except OSError:
            return path
        if known is None:
            return path
        for key, other in self._read()[0].items():
            if other.sha256 == known.sha256 and _current(key, other):
                return Path(other.path) if identity(path.stat()) != key else path
        return path

    def _read(self) -> tuple[dict[str, Entry], dict[str, str]]:
        try:
            with self.path.open("rb") as file:
                document = json.loads(file.read(_MAX_BYTES))
            if document["version"] != _VERSION:
                return {}, {}
            files, listed = document["files"], document.get("listed", {})
            return {key: _entry(value) for key, value in files.items()}, {
                path: _text(sha256) for path, sha256 in listed.items()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}, {}  # absent, damaged, or of another version: everything is checked anew, and the file rewritten


def _entry(value: Any) -> Entry:
    return Entry(_text(value["path"]), _text(value["sha256"]), tuple(_text(key) for key in value["checked"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")
    return value


def identity(stat: os.stat_result) -> str:
    """A file's size, modification time and inode, by which it is recognised."""
    return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ino}"


def _current(key: str, entry: Entry) -> bool:
    try:
        return identity(os.stat(entry.path)) == key
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from changing the memory in `folder` meanwhile, where the system has such locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
