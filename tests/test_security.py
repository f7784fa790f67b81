"""The numbers in SECURITY.md are those of the code, and all limits stand there."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from i2vgen_ms.media.limits import Limits
from i2vgen_ms.weights import limits

TEXT = (Path(__file__).resolve().parents[1] / "SECURITY.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w.]+)` \| ([^|]+?) \|", TEXT, re.MULTILINE)


def number(text: str) -> Any:
    """What a cell says, as the code would: `64 MiB` are bytes."""
    if text.endswith(" MiB"):
        return int(text.removesuffix(" MiB")) * 2**20
    return {"True": True, "any": "any"}.get(text) or float(text)


def value(name: str) -> Any:
    if name.startswith("Limits."):
        return getattr(Limits(), name.removeprefix("Limits."))
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"i2vgen_ms.{module}"), attribute)


def test_every_number_is_the_codes() -> None:
    assert len(ROWS) > 20
    assert [(name, number(cell)) for name, cell in ROWS] == [(name, value(name)) for name, _ in ROWS]


def test_every_limit_is_listed() -> None:
    listed = {name for name, _ in ROWS}
    assert {f"Limits.{field.name}" for field in fields(Limits)} <= listed
    constants = {name for name in vars(limits) if name.isupper()}
    assert {f"weights.limits.{name}" for name in constants} <= listed
