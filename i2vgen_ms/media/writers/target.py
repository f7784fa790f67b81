"""Target: the place where a result is put, all of it or nothing.

Given a name; hands out a temporary neighbour in the same folder to write into, and moves it into place when the work is
done. What stood there before is untouched until then. It does not know what is written.

Names are used literally: no shell, no pattern, no address.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from i2vgen_ms.errors import OutputError

_LONGEST_NAME = 255  # bytes, on every common file system
_MARK = ".part"
_ATTEMPTS = 20


class Target(Protocol):
    """`probe`, then `open`, then either `commit` or `discard`."""

    @property
    def path(self) -> Path | None:
        """Where the finished result is; None for memory."""

    def probe(self) -> None:
        """Raises OutputError when `open` or `commit` would fail; leaves nothing behind."""

    def open(self) -> BinaryIO | Path:
        """The temporary file, or folder, to write into."""

    def commit(self) -> None:
        """Moves it into place."""

    def discard(self) -> None:
        """Removes it; may be called at any time, also twice."""


def numbered(path: str | os.PathLike[str], index: int) -> str:
    """The name of one of several results: `out/name.mp4`, 0 -> `out/name_0.mp4`; a folder `frames/` -> `frames_0/`.

    >>> numbered('a.b/name.mp4', 2), numbered('frames/', 0)
    ('a.b/name_2.mp4', 'frames_0/')
    """
    name = os.fspath(path)
    bare = name.rstrip(_separators())
    stem, suffix = os.path.splitext(bare)
    return f"{stem}_{index}{suffix}{name[len(bare) :]}"


def _separators() -> str:
    return os.sep + (os.altsep or "")


def refusal(path: Path | str, error: OSError) -> OutputError:
    """What the system says, as this package's error."""
    text = str(path)
    shown = repr(text) if len(text) <= 500 else f"{text[:100]!r}..."
    return OutputError(f"{shown} cannot be written: {error.strerror or error}")


class MemoryTarget:
    """Bytes in memory."""

    path = None

    def __init__(self) -> None:
        self.file = io.BytesIO()

    def probe(self) -> None:
        """Memory is always there."""

    def open(self) -> BinaryIO:
        """The buffer."""
        return self.file

    def commit(self) -> None:
        """Nothing to move."""

    def discard(self) -> None:
        """Forgets the bytes."""
        self.file = io.BytesIO()


class Neighbour:
    """A temporary name beside `path`, locked while it is written, so that leftovers of a killed process are known."""

    def __init__(self, name: str | os.PathLike[str]) -> None:
        text = os.fspath(name)
        if "\0" in text:
            raise OutputError(f"{text!r} holds a NUL character, which no file name can")
        given = Path(os.path.abspath(text))
        if len(os.fsencode(given.name)) > _LONGEST_NAME:
            raise OutputError(f"{given.name[:40]!r}... has more than {_LONGEST_NAME} bytes, too long for a file name")
        # A link is followed, so that it stays a link: the file that it names is what is replaced.
        try:
            self.path = Path(os.path.realpath(given)) if given.is_symlink() else given
        except OSError as error:  # a path that is too long as a whole
            raise refusal(given, error) from error
        self.given = given
        kept = os.fsencode(self.path.name)[:200].decode("utf-8", "ignore")
        self._stem = f".{kept}."
        self.temporary: Path | None = None

    def fresh(self) -> Path:
        """A new temporary name."""
        return self.path.with_name(f"{self._stem}{secrets.token_hex(4)}{_MARK}")

    def check_parent(self) -> None:
        """Raises OutputError unless the folder is there."""
        parent = self.path.parent
        if not parent.exists():
            raise OutputError(
                f"{str(self.given)!r} cannot be written: there is no folder {str(parent)!r}; make it first"
            )
        if not parent.is_dir():
            raise OutputError(f"{str(self.given)!r} cannot be written: {str(parent)!r} is not a folder")

    def leftovers(self) -> list[Path]:
        """Temporary neighbours of this target, of this process or another."""
        pattern = re.compile(re.escape(self._stem) + r"[0-9a-f]{8}" + re.escape(_MARK))
        try:
            names = os.listdir(self.path.parent)
        except OSError:
            return []  # a folder may be writable but not readable
        return [self.path.parent / name for name in names if pattern.fullmatch(name)]


def lock(descriptor: int, *, wait: bool = False) -> bool:
    """Locks an open file or folder for its descriptor's life; False when locks do not exist here, or another has it.

    wait: until no other has it.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def remove_abandoned(path: Path, remove: Callable[[Path], object]) -> None:
    """Removes a temporary neighbour that no living process holds, and leaves it where that cannot be told."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        try:
            if lock(descriptor):
                remove(path)
        finally:
            os.close(descriptor)


def claimed(descriptor: int, path: Path) -> bool:
    """Locks a new temporary neighbour; False when another process took it for abandoned before the lock was there.

    Who takes it for abandoned has the lock while it removes it, and for nothing else: that is waited for.
    """
    lock(descriptor, wait=True)
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


class FileTarget(Neighbour):
    """One file."""

    def __init__(self, name: str | os.PathLike[str]) -> None:
        super().__init__(name)
        self._file: BinaryIO | None = None

    def probe(self) -> None:
        """Raises OutputError for a missing folder, a folder of this name, something read-only or not a plain file."""
        self._check()
        self.open()
        self.discard()

    def _check(self) -> None:
        self.check_parent()
        try:
            mode = self.path.stat().st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise refusal(self.given, error) from error
        if stat.S_ISDIR(mode):
            raise OutputError(f"{str(self.given)!r} is a folder; give the name of a file in it")
        if not stat.S_ISREG(mode):
            raise OutputError(f"{str(self.given)!r} is a device or a pipe, not a file that can be replaced")
        if not os.access(self.path, os.W_OK):
            raise OutputError(f"{str(self.given)!r} is there already and read-only")

    def open(self) -> BinaryIO:
        """A new file beside the target, open for writing and reading."""
        for leftover in self.leftovers():
            remove_abandoned(leftover, os.unlink)
        try:
            return self._create()
        except OSError as error:
            self.discard()
            raise refusal(self.given, error) from error

    def _create(self) -> BinaryIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        for _ in range(_ATTEMPTS):
            temporary = self.fresh()
            descriptor = os.open(temporary, flags, 0o666)
            self.temporary = temporary
            try:
                self._file = os.fdopen(descriptor, "w+b")
            except BaseException:
                os.close(descriptor)
                raise
            if claimed(descriptor, temporary):
                return self._file
            self.discard()
        raise OSError(errno.EBUSY, "other processes remove what is written there")

    def commit(self) -> None:
        """Writes everything to the disk, then replaces the target in one step."""
        if self._file is None or self.temporary is None:
            raise OutputError(f"{str(self.given)!r}: nothing was opened")
        held: int | None = None
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            held = os.dup(self._file.fileno())  # the lock lasts as long as a descriptor
            # A network's file system may say only now that there was no room: after the move that would be too late.
            self._file.close()
            self._check()
            if self.path.exists():
                os.chmod(self.temporary, stat.S_IMODE(self.path.stat().st_mode))
            os.replace(self.temporary, self.path)
        except OSError as error:
            self.discard()
            raise error if isinstance(error, OutputError) else refusal(self.given, error) from error
        finally:
            if held is not None:
                os.close(held)
        self.temporary = self._file = None
        sync_folder(self.path.parent)

    def discard(self) -> None:
        """Removes the temporary file."""
        file, self._file = self._file, None
        temporary, self.temporary = self.temporary, None
        try:
            if file is not None:
                file.close()
        except OSError:
            pass  # a full disk reports itself once more here; the file goes away anyway
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power failure, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)


def as_folder(name: Any) -> bool:
    """Whether a name asks for a folder: it ends with a separator, or has no suffix."""
    text = os.fspath(name)
    return text.endswith(tuple(_separators())) or not os.path.splitext(text)[1]
