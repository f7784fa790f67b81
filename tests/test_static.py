"""Lint, format and types, as the tools themselves judge them with the settings of pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = {
    "lint": ("ruff", "check", "--no-cache", "."),
    "format": ("ruff", "format", "--no-cache", "--check", "."),
    "types": ("mypy",),
}
SLOW = {"types"}


@pytest.mark.parametrize("tool", [pytest.param(tool, marks=pytest.mark.full if tool in SLOW else ()) for tool in TOOLS])
def test_the_tool_has_nothing_to_say(tool: str) -> None:
    done = subprocess.run([sys.executable, "-m", *TOOLS[tool]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(TOOLS[tool])}:\n{done.stdout}{done.stderr}"


def test_no_file_is_too_long() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in (ROOT / "i2vgen_ms").rglob("*.py")}
    assert {str(file): length for file, length in lengths.items() if length > 300} == {}
