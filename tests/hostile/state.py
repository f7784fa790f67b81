"""What a case must leave as it was: threads, child processes, open files, random numbers, environment, temp folders.

`State()` takes a picture of the process; `differences(before)` says in words what is otherwise now. It knows no tests.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

_PATIENCE = 3.0  # seconds that a thread which was told to end, or a killed process, has for it
# Python's own helper of multiprocessing, one a process, which stays on purpose.
_STAYING = b"multiprocessing.resource_tracker"
# Of a library's allocator, begun when the library is imported (pyarrow's, by ModelScope).
_STAYING_THREADS = ("jemalloc_bg_thd",)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def children() -> dict[int, str]:
    """The processes whose parent is this one, by id; those that ended and were not waited for, too."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue  # gone meanwhile
        if int(fields[1]) == os.getpid() and _STAYING not in command:
            found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace").strip() or "ended, not waited for"
    return found


def descriptors() -> dict[int, str]:
    """What every open descriptor leads to."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue  # the listing's own
    return found


def native_threads() -> dict[int, str]:
    """Threads of libraries, by id, that bear a name of their own, as FFmpeg's do (torch's pool keeps the process's)."""
    names = {}
    for entry in os.listdir("/proc/self/task"):
        try:
            names[int(entry)] = Path(f"/proc/self/task/{entry}/comm").read_text().strip()
        except OSError:
            continue
    own = names.get(os.getpid())
    return {
        number: name
        for number, name in names.items()
        if name != own and not name.startswith(("python", *_STAYING_THREADS))
    }


def environment() -> dict[str, str]:
    """The environment without pytest's own note of which test runs."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def peak_mib() -> float:
    """The largest resident memory since `forget_peak`, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the system does not tell the peak")


def forget_peak() -> float:
    """Begins to measure the peak anew; the resident memory now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


class State:
    """The process as it is at one moment."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.native = native_threads()
        self.children = children()
        self.descriptors = descriptors()
        self.environment = environment()
        self.folder = os.getcwd()
        self.files = {place: set(os.listdir(place)) for place in {self.folder, tempfile.gettempdir(), Path.home()}}
        self.torch = torch.get_rng_state()
        self.numpy = np.random.get_state()
        self.python = random.getstate()
        self.settings = (
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
        )
        self.handlers = [signal.getsignal(number) for number in _SIGNALS]
        os.umask(mask := os.umask(0o022))
        self.mask = mask


def differences(before: State) -> list[str]:
    """What is otherwise than before, one line each; waits a little for what is about to end."""
    deadline = time.monotonic() + _PATIENCE
    gc.collect()
    while (left := list(_left(before))) and time.monotonic() < deadline:
        time.sleep(0.02)
        gc.collect()
    return left + list(_changed(before))


def _left(before: State) -> Iterator[str]:
    """What was begun or opened and is still there."""
    for thread in set(threading.enumerate()) - before.threads:
        yield f"the thread {thread.name!r} still runs"
    native = native_threads()
    yield from (f"the native thread {native[number]!r} still runs" for number in native.keys() - before.native.keys())
    processes = children()
    for number in processes.keys() - before.children.keys():
        yield f"the process {number} is still there: {processes[number][:200]}"
    for number, path in descriptors().items():
        if before.descriptors.get(number) != path:
            yield f"the descriptor {number} is still open: {path}"


def _changed(before: State) -> Iterator[str]:
    """What is no more as it was."""
    if not torch.equal(before.torch, torch.get_rng_state()):
        yield "torch's global random state changed"
    numbers = zip(before.numpy, np.random.get_state(), strict=True)
    if not all(np.array_equal(one, other) for one, other in numbers):
        yield "numpy's global random state changed"
    if before.python != random.getstate():
        yield "the random module's global state changed"
    now = State()
    for name in before.environment.keys() | now.environment.keys():
        if before.environment.get(name) != now.environment.get(name):
            yield f"the environment variable {name} was {before.environment.get(name)!r}, now {os.environ.get(name)!r}"
    if before.folder != os.getcwd():
        yield f"the working folder is {os.getcwd()} instead of {before.folder}"
    for place, names in before.files.items():
        if new := sorted(set(os.listdir(place)) - names):
            yield f"new in {place}: {', '.join(new[:10])}"
        if gone := sorted(names - set(os.listdir(place))):
            yield f"gone from {place}: {', '.join(gone[:10])}"
    if before.settings != now.settings:
        yield f"torch's threads, type, gradient or determinism were {before.settings}, now {now.settings}"
    if before.handlers != now.handlers:
        yield "a signal handler changed"
    if before.mask != now.mask:
        yield f"the umask was {before.mask:o}, now {now.mask:o}"
