"""Source: bytes from a path, an http(s) address, bytes or a file object, within limits.

Given what a user named and the limits; gives back bytes or a seekable binary file. It does not know what the bytes
mean: pictures and videos are decoded elsewhere.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from i2vgen_ms.errors import ArgumentError, MediaLimitError, UnreadableMediaError
from i2vgen_ms.media.limits import Limits, words

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(data):")
_CHUNK = 1 << 20


def describe(source: Any) -> str:
    """A short name of `source` for messages; never a password, never more than 120 characters."""
    if isinstance(source, (str, os.PathLike)):
        text = re.sub(r"://[^/@]*@", "://***@", os.fsdecode(os.fspath(source)))
        return repr(text if len(text) <= 120 else text[:100] + "..." + text[-17:])
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"the data given ({len(source)} bytes)"
    return f"a {type(source).__name__}"


def is_url(source: Any) -> bool:
    """Whether `source` is a string that starts with `http://` or `https://`."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


@contextmanager
def open_source(source: Any, *, limits: Limits, max_bytes: int | None = None) -> Iterator[BinaryIO]:
    """A seekable binary file at its first byte; what this opened is closed afterwards.

    `source` is a path (a regular file), an http(s) address, bytes, or a binary file object. A file object is read
    from its beginning when it can seek, and stands afterwards where it stood before. `max_bytes` replaces
    `limits.max_bytes`.

    Raises UnreadableMediaError (missing, not a regular file, a scheme that is not accepted, a failed download),
    MediaLimitError (too large, too slow, a path or an address that `limits` refuse), ArgumentError (something that is
    no source at all).
    """
    cap = limits.max_bytes if max_bytes is None else max_bytes
    if isinstance(source, (bytes, bytearray, memoryview)):
        _check_size(len(source), cap, source)
        yield io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        if is_url(source):
            from i2vgen_ms.media.download import download

            with download(str(source), limits=limits, max_bytes=cap) as file:
                yield file
        else:
            with _open_path(source, limits) as file:
                _check_size(os.fstat(file.fileno()).st_size, cap, source)
                yield file
    elif callable(getattr(source, "read", None)):
        with _file_object(source, cap) as file:
            yield file
    else:
        raise ArgumentError(
            f"expected a path, an http(s) address, bytes or a binary file object, got {type(source).__name__}"
        )


def read_source(source: Any, *, limits: Limits) -> bytes:
    """All bytes of `source`; the same sources and errors as `open_source`, and an error when there are none."""
    with open_source(source, limits=limits) as file:
        data = _read_capped(file, limits.max_bytes, source)
    if not data:
        raise UnreadableMediaError(f"{describe(source)} is empty")
    return data


def _check_size(size: int, cap: int, source: Any) -> None:
    if size > cap:
        raise MediaLimitError(f"{describe(source)} has {words(size)}; at most {words(cap)} are read")


def _open_path(source: str | os.PathLike[Any], limits: Limits) -> BinaryIO:
    path = os.fspath(source)
    scheme = _SCHEME.match(path) if isinstance(path, str) else None
    if scheme:
        raise UnreadableMediaError(
            f"{describe(source)}: addresses of the kind {scheme[1] or scheme[2]!r} are not read; "
            "give a path, an http(s) address, bytes or a file object"
        )
    if not limits.paths:
        raise MediaLimitError(f"{describe(source)}: names of files are not opened here; send the file itself")
    if not path:
        raise UnreadableMediaError("the name of the file to read is empty")
    try:
        # A pipe or a device would block or never end: it is opened without waiting, looked at, and refused.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableMediaError(f"{describe(source)} cannot be opened: {reason}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise UnreadableMediaError(f"{describe(source)} is {kind}, not a file")
    return os.fdopen(descriptor, "rb")


@contextmanager
def _file_object(source: Any, cap: int) -> Iterator[BinaryIO]:
    try:
        start = source.tell() if source.seekable() else None
    except (AttributeError, OSError):
        start = None
    if start is None:
        yield io.BytesIO(_read_capped(source, cap, source))
        return
    try:
        _check_size(source.seek(0, os.SEEK_END) or source.tell(), cap, source)
        source.seek(0)
        if not isinstance(source.read(0), bytes):
            raise ArgumentError(f"{describe(source)} is open as text; open it in binary mode ('rb')")
        yield cast(BinaryIO, source)
    finally:
        source.seek(start)


def _read_capped(file: Any, cap: int, source: Any) -> bytes:
    """Reads in pieces, because a file may grow, lie about its size or never end."""
    pieces: list[bytes] = []
    total = 0
    while True:
        try:
            piece = file.read(min(_CHUNK, cap + 1 - total))
        except OSError as error:
            raise UnreadableMediaError(f"{describe(source)} cannot be read: {error}") from error
        if not piece:
            return b"".join(pieces)
        if not isinstance(piece, bytes):
            raise ArgumentError(f"{describe(source)} gives text; open it in binary mode ('rb')")
        pieces.append(piece)
        total += len(piece)
        if total > cap:
            raise MediaLimitError(f"{describe(source)} has more than {words(cap)}, which is the most that is read")
