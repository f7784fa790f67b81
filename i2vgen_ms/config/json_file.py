"""Reads one JSON object from a file, strictly: a regular file, at most 1 MB, UTF-8 without BOM, no key twice, no NaN.

Knows nothing of what the object means. Every failure is a ConfigurationError that starts with the file's name.
"""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any, NoReturn

from i2vgen_ms.errors import ConfigurationError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32


def read_object(path: Path) -> dict[str, Any]:
    """The object in the file at `path`."""
    text = _text(path)
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise _error(path, f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _error(path, f"nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:  # from the hooks
        raise _error(path, str(error)) from None
    if not isinstance(value, dict):
        raise _error(path, f"a JSON object is expected, got {type(value).__name__}")
    if _depth(value) > MAX_DEPTH:
        raise _error(path, f"nested more than {MAX_DEPTH} levels deep")
    return value


def _text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe or a device would wait for ever
            raise _error(path, "not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror or error} ({path})") from None
    except ValueError as error:  # a NUL in the path
        raise ConfigurationError(f"{str(path)!r} is not a path: {error}") from None
    if len(data) > MAX_BYTES:
        raise _error(path, f"larger than {MAX_BYTES} bytes; this is not a model's configuration")
    if data.startswith(b"\xef\xbb\xbf"):
        raise _error(path, "starts with a byte order mark; save it as UTF-8 without BOM")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _error(path, f"not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}") from None


def _error(path: Path, message: str) -> ConfigurationError:
    return ConfigurationError(f"{path.name}: {message}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.80} stands twice in one object; remove one")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number; give a finite one")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} is too large for a number")
    return value


def _integer(text: str) -> int:
    if len(text) > 40:  # also keeps int() from its quadratic time
        raise ValueError(f"{text[:20]}... is too large for an integer")
    return int(text)


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        level = [
            item
            for container in level
            if isinstance(container, dict | list)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
        deepest += 1
    return deepest - 1
