"""How much memory a piece of work needs at its peak, measured in this process."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path


def resident() -> int:
    """Bytes of memory this process has now, mapped files included."""
    return _status("VmRSS")


def peak_of(work: Callable[[], object]) -> int:
    """Bytes by which memory grew at most while `work` ran. (`ru_maxrss` is inherited and cannot be set back.)"""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not be used again unseen
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    held = work()  # kept until it is measured
    peak = _status("VmHWM") - before
    del held
    return peak


def _status(key: str) -> int:
    found = re.search(rf"{key}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024
