"""What is already known to be sound about weight files, remembered so that it is found out once.

Given an opened checkpoint and the names of the tensors that somebody wants from it. A file is recognised by its size,
its modification time in nanoseconds and its inode; what is remembered is its sha256 and for which sets of tensors the
checksums and the finiteness were checked. The memory is one small JSON file in the user's cache folder; losing it
costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from i2vgen_ms.errors import CorruptCheckpointError, NonFiniteError
from i2vgen_ms.weights.checkpoint import Checkpoint
from i2vgen_ms.weights.records import TensorRecord

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
        return self._read().get(_identity(stat))

    def remember(self, stat: os.stat_result, entry: Entry) -> None:
        """Keeps `entry` for the file with this size, modification time and inode, and forgets files that are gone."""
        entries = {key: known for key, known in self._read().items() if _current(key, known)}
        entries.pop(_identity(stat), None)
        entries[_identity(stat)] = entry
        kept = dict(list(entries.items())[-MAX_ENTRIES:])
        document = {"version": _VERSION, "files": {key: asdict(known) for key, known in kept.items()}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(document, file, indent=1)
                os.replace(name, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
        except OSError as error:
            warnings.warn(
                f"{self.path}: cannot be written ({error.strerror or error}), so weight files are checked again at "
                "every load; set I2VGEN_MS_CACHE to a folder that can be written",
                stacklevel=2,
            )

    def twin(self, path: str | os.PathLike[str]) -> Path:
        """The first file known to hold the same bytes as `path`, so that both share their pages; else `path` itself."""
        path = Path(path)
        try:
            known = self.recall(path.stat())
        except OSError:
            return path
        if known is None:
            return path
        for key, other in self._read().items():
            if other.sha256 == known.sha256 and _current(key, other):
                return Path(other.path) if _identity(path.stat()) != key else path
        return path

    def _read(self) -> dict[str, Entry]:
        try:
            with self.path.open("rb") as file:
                document = json.loads(file.read(_MAX_BYTES))
            if document["version"] != _VERSION:
                return {}
            return {key: _entry(value) for key, value in document["files"].items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}  # absent, damaged, or of another version: everything is checked anew, and the file rewritten


def _entry(value: Any) -> Entry:
    path, sha256, checked = value["path"], value["sha256"], value["checked"]
    if not all(isinstance(text, str) for text in (path, sha256, *checked)):
        raise ValueError("not text")
    return Entry(path, sha256, tuple(checked))


def _identity(stat: os.stat_result) -> str:
    return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ino}"


def _current(key: str, entry: Entry) -> bool:
    try:
        return _identity(os.stat(entry.path)) == key
    except (OSError, ValueError):
        return False


def verify(
    checkpoint: Checkpoint,
    names: Iterable[str],
    *,
    finite: bool = True,
    sha256: str | None = None,
    memory: Memory | None = None,
) -> str:
    """The sha256 of a file whose named tensors are whole and, if `finite`, free of NaN and infinity.

    The file is read once, the first time; later calls find the answer in `memory` (by default the user's) and read
    nothing.

    Raises:
        CorruptCheckpointError: its sha256 is not the expected `sha256`, or a tensor does not match its checksum.
        NonFiniteError: naming the tensor that holds NaN or infinity.
    """
    memory = memory or Memory()
    wanted = sorted(names)
    key = hashlib.sha256("\n".join([f"finite={finite}", *wanted]).encode()).hexdigest()[:32]
    stat = checkpoint.file.stat
    known = memory.recall(stat)
    if known is None or key not in known.checked:
        with ThreadPoolExecutor(1) as pool:  # hashing and checking both leave the interpreter free
            digest = None if known else pool.submit(_digest, checkpoint)
            for name in wanted:
                _check(checkpoint, name, checkpoint[name], finite)
            found = known.sha256 if known else digest.result() if digest else ""
        _expect(checkpoint, found, sha256)
        checked = known.checked if known else ()
        known = Entry(str(checkpoint.path.resolve()), found, (*checked, key)[-32:])
        memory.remember(stat, known)
    _expect(checkpoint, known.sha256, sha256)
    return known.sha256


def _digest(checkpoint: Checkpoint) -> str:
    with checkpoint.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _identity(os.fstat(file.fileno())) != _identity(checkpoint.file.stat):
            raise CorruptCheckpointError(f"{checkpoint.path}: the file changed while it was read; load it again")
    return digest


def _expect(checkpoint: Checkpoint, found: str, wanted: str | None) -> None:
    if wanted is not None and found != wanted.lower():
        raise CorruptCheckpointError(
            f"{checkpoint.path}: its sha256 is {found}, but {wanted.lower()} is expected; download it again"
        )


def _check(checkpoint: Checkpoint, name: str, record: TensorRecord, finite: bool) -> None:
    span = record.span
    if span.crc is not None and span.length:
        data = record.file.tensor(span.start, span.length, torch.uint8)
        if zlib.crc32(data.numpy().data) != span.crc:
            raise CorruptCheckpointError(
                f"{checkpoint.path}: the data of {name} does not match its checksum; download it again"
            )
    if finite and not is_finite(record.load()):
        raise NonFiniteError(
            f"{checkpoint.path}: the weights {name} hold NaN or infinity; the file is damaged or its training failed"
        )
    record.release()


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite, in one pass and without a temporary of the tensor's size."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return True
    low, high = torch.aminmax(tensor)  # NaN, too, comes through
    return bool(torch.isfinite(low) & torch.isfinite(high))
