"""The bounds themselves: whatever a case leaves behind is seen, and the table counts it as failed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.hostile import state

pytestmark = pytest.mark.hostile
ROOT = Path(__file__).resolve().parents[2]

CASES = """
import os, random, subprocess, sys, tempfile, threading, time
import pytest
pytestmark = [pytest.mark.hostile, pytest.mark.group("A2")]
kept = []

def test_clean(tmp_path, leaves):
    with leaves(tmp_path, "a"):
        (tmp_path / "a").touch()

def test_wrong():
    assert False

@pytest.mark.group("L")
def test_descriptor():
    kept.append(open(os.devnull))

@pytest.mark.group("L")
@pytest.mark.bounds(seconds=0.2)
def test_time():
    try:
        time.sleep(20)
    except Exception:
        pass

@pytest.mark.group("L")
@pytest.mark.bounds(rss_mib=64)
def test_memory():
    bytes(bytearray(100 * 2**20).replace(b"\\0", b"x"))

def test_file(tmp_path, leaves):
    with leaves(tmp_path):
        (tmp_path / "a.part").touch()

def test_skipped():
    pytest.skip("does not count")
"""


def _stop(thread: threading.Thread, end: threading.Event) -> None:
    end.set()
    thread.join()


def _thread() -> Callable[[], object]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="lost")
    thread.start()
    return lambda: _stop(thread, end)


def _child() -> Callable[[], object]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    return lambda: (process.kill(), process.wait())


def _file() -> Callable[[], object]:
    handle, name = tempfile.mkstemp(prefix="lost")
    os.close(handle)
    return lambda: os.unlink(name)


def _descriptor() -> Callable[[], object]:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    return lambda: os.close(descriptor)


def _torch() -> Callable[[], object]:
    before = torch.get_rng_state()
    torch.rand(1)
    return lambda: torch.set_rng_state(before)


def _numpy() -> Callable[[], object]:
    before = np.random.get_state()
    np.random.rand()
    return lambda: np.random.set_state(before)


def _random() -> Callable[[], object]:
    before = random.getstate()
    random.random()
    return lambda: random.setstate(before)


def _environment() -> Callable[[], object]:
    os.environ["LOST"] = "1"
    return lambda: os.environ.pop("LOST")


def _folder() -> Callable[[], object]:
    before = os.getcwd()
    os.chdir("/")
    return lambda: os.chdir(before)


def _threads() -> Callable[[], object]:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    return lambda: torch.set_num_threads(before)


def _handler() -> Callable[[], object]:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return lambda: signal.signal(signal.SIGTERM, before)


LEAKS = {
    "the thread 'lost' still runs": _thread,
    "the process": _child,
    "new in": _file,
    "is still open: /dev/null": _descriptor,
    "torch's global random state": _torch,
    "numpy's global random state": _numpy,
    "the random module's": _random,
    "the environment variable LOST": _environment,
    "the working folder is /": _folder,
    "torch's threads": _threads,
    "a signal handler": _handler,
}


@pytest.mark.parametrize("words", LEAKS)
def test_a_leak_is_seen_and_put_right(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_PATIENCE", 0.05)
    before = state.State()
    mend = LEAKS[words]()
    try:
        found = state.differences(before)
    finally:
        mend()
    assert any(words in line for line in found), found
    assert state.differences(before) == []


def test_the_table_counts_what_ran_and_what_was_left(tmp_path: Path) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    command = [sys.executable, "-m", "pytest", "-p", "tests.hostile.conftest", "-p", "no:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-m", "hostile"]
    command += ["--basetemp", str(tmp_path / "base"), str(tmp_path / "test_cases.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout[done.stdout.index("what  ") :].splitlines()[1:4]]
    assert [row[:1] + row[-4:-1] for row in rows] == [
        ["A2", "3", "1", "2"],
        ["L", "3", "0", "3"],
        ["all", "6", "1", "5"],
    ], done.stdout
    for words in ("took more than 0.2 seconds", "resident memory grew by", "still open: /dev/null", "a.part"):
        assert words in done.stdout
