"""Read-only places that are read-only for root too: gives up, for a while, the right to ignore file modes.

Linux only, and only the calling thread; without root there is nothing to give up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_VERSION = 0x20080522
_IGNORE_MODES = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("process", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextlib.contextmanager
def modes_hold() -> Iterator[None]:
    """File modes bind this thread, whoever it runs as."""
    if os.geteuid() != 0:
        yield
        return
    library, header, data = ctypes.CDLL(None, use_errno=True), _Header(_VERSION, 0), (_Data * 2)()

    def call(name: str) -> None:
        if getattr(library, name)(ctypes.byref(header), data) != 0:
            raise OSError(ctypes.get_errno(), name)

    call("capget")
    before = data[0].effective
    data[0].effective = before & ~_IGNORE_MODES
    call("capset")
    try:
        yield
    finally:
        data[0].effective = before
        call("capset")


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody can create, rename or remove anything in `folder`, this thread included."""
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    try:
        with modes_hold():
            yield
    finally:
        folder.chmod(mode)
