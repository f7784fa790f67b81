"""What the tests of the examples share: running a script as a user does, and looking at what it made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i2vgen_ms import demo
from i2vgen_ms.media.clip import read_clip

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SMALL, LARGE = (16, 64, 128, 3), (16, 128, 256, 3)


@pytest.fixture
def picture() -> demo.Sample:
    return demo.sample("ring")


def python(folder: Path, *words: Any, status: int = 0, path: Path | None = None) -> str:
    """What Python printed (of a failure: what it said of it), run in `folder`; `path`: where more packages are."""
    places = [str(ROOT), *([str(path)] if path else [])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


def script(folder: Path, name: str, *words: Any, **given: Any) -> str:
    """The same of one of the scripts."""
    return python(folder, EXAMPLES / name, *words, **given)


def shape(video: Path) -> tuple[int, ...]:
    """`f h w c` of a video file."""
    return np.asarray(read_clip(video, max_frames=99).frames).shape
