"""The page in a process of its own, and the system's Chromium to look at it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.threads import as_many

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "output" / "screenshots"
STARTING = 180.0
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def chromium() -> str:
    """The system's Chromium. Without one a test is skipped, or fails where CI is set: there it must not be missing."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(name)) is not None:
            return found
    words = "no Chromium on this machine; `apt-get install -y chromium` brings one"
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(words)
    pytest.skip(words)


@dataclass
class Server:
    """A page that is served: its address, its process, what it said."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def served(folder: Path, *words: str, **environment: str) -> Iterator[Server]:
    """`python WORDS...` in a temporary folder of its own, as soon as it has said its address."""
    log, temporary = folder / "log", folder / "tmp"
    temporary.mkdir(parents=True)
    told = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)} | as_many() | environment
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *words], cwd=folder, env=told, stdout=output, stderr=output)
    try:
        end = time.monotonic() + STARTING
        while (found := re.search(r"^(http://\S+?)/?$", log.read_text(), re.MULTILINE)) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield Server(found[1], process, log)
    finally:
        process.kill()
        process.wait()
