"""Another process, because this one's Triton may be set to its interpreter for good (see tests/conftest.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python(kernels: Path, *words: str) -> str:
    """What `python WORDS...` prints, with Triton as it is; compiled kernels are kept in the folder `kernels`."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    places = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    environment |= {"TRITON_CACHE_DIR": str(kernels), "PYTHONPATH": places}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
