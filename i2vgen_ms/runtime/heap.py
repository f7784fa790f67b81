"""Heap: what tensors on the CPU give back is kept for the next ones, while a network runs.

The C library hands a large block that is freed to the system at once, and asks for it anew for the next tensor, whose
every page is then a fault and full of zeros first. A network does that hundreds of times a step, with the same sizes
each time. Only glibc is told otherwise; elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# Of mallopt (malloc.h): from which size on a block is mapped by itself, and how much stays at the heap's end.
_TRIM, _MAP = -1, -3
_ALL = 2**31 - 1
# What glibc's own adjusting goes up to, which the first mallopt ends: a process with tensors has long reached it.
_MAP_USUAL = 32 * 2**20
_TRIM_USUAL = 2 * _MAP_USUAL

_lock = threading.Lock()
_users = 0


@contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """While the block runs on the CPU, freed memory stays with the process; at its end the system has it back.

    Blocks may overlap, in threads too: the last one's end counts. Whoever tuned the allocator keeps what was chosen.
    """
    library = _glibc() if device.type == "cpu" else None
    if library is None:
        yield
        return
    _enter(library)
    try:
        yield
    finally:
        _leave(library)


def _enter(library: ctypes.CDLL) -> None:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            library.mallopt(_MAP, _ALL)
            library.mallopt(_TRIM, _ALL)


def _leave(library: ctypes.CDLL) -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            library.mallopt(_MAP, _MAP_USUAL)
            library.mallopt(_TRIM, _TRIM_USUAL)
            library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc with its own allocator as it comes."""
    tuned = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if tuned or not hasattr(os, "confstr"):
        return None
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return None
        library = ctypes.CDLL(None)
        library.mallopt.argtypes, library.mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
        library.malloc_trim.argtypes, library.malloc_trim.restype = (ctypes.c_size_t,), ctypes.c_int
    except (OSError, ValueError, AttributeError):
        return None
    return library
