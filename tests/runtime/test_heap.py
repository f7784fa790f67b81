"""The heap is kept while blocks run, and given back after the last; whoever tuned it is left alone."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from i2vgen_ms.runtime import heap
from tests.runtime.small import HERE


class Library:
    """Takes down what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def mallopt(self, *given: int) -> int:
        self.calls.append(given)
        return 1

    def malloc_trim(self, *given: int) -> int:
        self.calls.append(given)
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setattr(heap, "_glibc", lambda: made)
    return made


@pytest.fixture
def _fresh() -> Iterator[None]:
    heap._glibc.cache_clear()
    yield
    heap._glibc.cache_clear()


KEEP = [(-3, 2**31 - 1), (-1, 2**31 - 1)]
RETURN = [(-3, 32 * 2**20), (-1, 64 * 2**20), (0,)]


def test_the_last_of_overlapping_blocks_gives_back(library: Library) -> None:
    with heap.kept(HERE):
        with heap.kept(HERE):
            assert library.calls == KEEP
        assert library.calls == KEEP
    assert library.calls == KEEP + RETURN


def test_blocks_of_threads_overlap_too(library: Library) -> None:
    inside, go = threading.Event(), threading.Event()

    def other() -> None:
        with heap.kept(HERE):
            inside.set()
            go.wait(10)

    thread = threading.Thread(target=other)
    with heap.kept(HERE):
        thread.start()
        assert inside.wait(10)
    assert library.calls == KEEP
    go.set()
    thread.join()
    assert library.calls == KEEP + RETURN


def test_an_error_ends_the_block(library: Library) -> None:
    with pytest.raises(ValueError, match="so"), heap.kept(HERE):
        raise ValueError("so")
    assert library.calls == KEEP + RETURN


def test_other_devices_do_not_care(library: Library) -> None:
    with heap.kept(torch.device("cuda")):
        pass
    assert library.calls == []


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_a_tuned_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "glibc.malloc.trim_threshold=1000000")
    assert heap._glibc() is None


@pytest.mark.usefixtures("_fresh")
def test_no_such_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert heap._glibc() is None
    with heap.kept(HERE):
        pass


MEASURE = """
import resource, torch
from contextlib import nullcontext
from i2vgen_ms.runtime import heap

def faults(block):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with block:
        for _ in range(40):
            torch.ones(48 * 2**20 // 4)  # each is given back before the next
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

print(faults(nullcontext()), faults(heap.kept(torch.device("cpu"))), resident())
"""


@pytest.mark.skipif(heap._glibc() is None, reason="needs glibc's allocator as it comes")
def test_pages_are_taken_once_and_given_back() -> None:
    """48 MiB are 12288 pages of 4 KiB; the allocator comes back to the same ones after some rounds."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    plain, kept, resident = map(float, done.stdout.split())
    assert kept < plain / 3
    assert resident < 32 + _resident_without()


def _resident_without() -> float:
    """MiB of a process that has imported as much and made nothing."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.replace("range(40)", "range(0)")], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[2])
