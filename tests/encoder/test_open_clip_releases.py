"""The encoders' tests once more, with the oldest open_clip that setup.cfg allows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OLDEST = "2.26.1"
FOLDER = Path(__file__).parent


@pytest.mark.full
def test_with_the_oldest_open_clip(tmp_path):
    site = tmp_path / "site"
    package = f"open_clip_torch=={OLDEST}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, package], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    version = [sys.executable, "-c", "import open_clip; print(open_clip.__version__)"]
    seen = subprocess.run(version, env=environment, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == OLDEST
    files = [FOLDER / "test_image.py", FOLDER / "test_text.py"]
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore::FutureWarning"]  # that release imports an old timm name
    command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
    result = subprocess.run(
        command, env=environment, cwd=FOLDER.parents[1], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
