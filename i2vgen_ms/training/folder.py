"""A run's folder: what is made ready in it before the first step, also where an earlier run was killed.

Given the settings, and the step from which the run goes on. Only the main process writes.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from i2vgen_ms.errors import ConfigurationError, OutputError
from i2vgen_ms.training import export
from i2vgen_ms.training.report import LOG
from i2vgen_ms.training.settings import DenoisingSettings, Settings

STATE, SETTINGS = "state.safetensors", "settings.json"
MODEL, ADAPTERS = "model", "lora"
# What may change when a run goes on: how long it is, what it tells and leaves, and what a step may take in another way
# (other clips, other sizes of batches, blocks that are computed again).
_FREE = ("output", "length", "log", "validation", "state", "export", "checkpointing", "data", "batch")


def begin(folder: Path, settings: Settings, step: int | None) -> None:
    """Makes the folder ready: the settings are written down, and what a kill left half-done is put right.

    step: the one that a run goes on from, which then logs those behind it anew; None for a run that begins.
    Raises: OutputError when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (MODEL, ADAPTERS):
            export.recover(folder / name)
        for name in (STATE, SETTINGS, LOG):
            for unfinished in folder.glob(f".{name}.*.partial"):
                unfinished.unlink()
        if step is not None and (folder / LOG).exists():
            _replace(folder / LOG, "".join(_lines_to(step, folder / LOG)))
        _replace(folder / SETTINGS, json.dumps(settings.to_json(), indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error


def made(folder: Path, settings: Settings) -> Path:
    """Where the run leaves what it made."""
    is_adapter = isinstance(settings, DenoisingSettings) and settings.lora is not None
    return folder / (ADAPTERS if is_adapter else MODEL)


def goes_on(folder: Path, settings: Settings, before: Mapping[str, Any]) -> None:
    """Raises: ConfigurationError, if the run in the folder began with other settings, which are `before`."""
    now = settings.to_json()
    changed = [key for key in now if key not in _FREE and before.get(key) != now[key]]
    if changed:
        raise ConfigurationError(
            f"settings: {', '.join(changed)}: changed since the run in {folder} began; give what it began with, or "
            "another output"
        )


def _lines_to(step: int, log: Path) -> Iterator[str]:
    """The log's lines up to a step; without one that a kill cut off."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                yield line + "\n"
        except (ValueError, KeyError, TypeError):
            continue


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
