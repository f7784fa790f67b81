"""Reads the configuration of a model folder: our own layout, or an official hub folder laid over a shipped variant.

    read(folder)          configuration.json of one folder; ConfigurationError names the JSON path of what is wrong
    shipped(variant)      one of the variants that come with this package
    weight_file(folder, name)   where a weight file is; refuses to leave the folder

Reads no weights and imports no part.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from i2vgen_ms.config import data
from i2vgen_ms.config.json_file import read_object
from i2vgen_ms.config.overlay import ConfigurationWarning, overlay
from i2vgen_ms.config.schema import FILE, FORMAT, Configuration
from i2vgen_ms.errors import ConfigurationError, nearest

MAX_SHOWN = 20  # of the keys that a warning lists
CODE_KEYS = ("plugins", "allow_remote")  # they ask for code to be installed or run; this package never does


def variants() -> list[str]:
    """Names of the shipped variants: the folders under configuration/ that hold a configuration.json."""
    return sorted(path.parent.name for path in data.configuration_folder().glob(f"*/{FILE}"))


def shipped(variant: str) -> Configuration:
    """The configuration of a shipped variant; a fresh one at each call."""
    if variant not in variants():
        raise ConfigurationError(f"no shipped variant {variant!r}; {nearest(variant, variants())}")
    return read(data.configuration_folder() / variant)


def read(folder: str | os.PathLike[str]) -> Configuration:
    """The configuration of the model folder `folder`.

    Our own layout (with "format") is read strictly. An official hub folder overlays the shipped variant of its task;
    keys of it that are not known are ignored, with one ConfigurationWarning that lists them.
    """
    folder = Path(folder)
    values = read_object(_file_in(folder))
    ignored = [key for key in CODE_KEYS if values.pop(key, None) is not None]
    if "format" in values:
        configuration = Configuration.from_json(values)
    else:
        base = shipped(_variant_of_task(values.get("task")))
        merged, unknown = overlay(values, base)
        ignored += unknown
        configuration = Configuration.from_json(merged)
    if ignored:
        warnings.warn(f"{FILE}: ignored: {_shown(ignored)}", ConfigurationWarning, stacklevel=2)
    for name in configuration.weights.model_dump().values():
        weight_file(folder, name)
    return configuration


def weight_file(folder: str | os.PathLike[str], name: str) -> Path:
    """The path of a weight file of a model folder, which need not exist.

    Raises ConfigurationError where the name, or a symbolic link, leads out of the folder. The one exception is the
    layout of a hub cache, where `snapshots/REVISION/NAME` links to `blobs/...` of the same repository.
    """
    folder = Path(folder)
    path = folder / name
    try:
        home, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigurationError(f"{FILE}: weights: {name!r} is not a file of {folder}: {error}") from None
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append(home.parent.parent / "blobs")
    if not any(target.is_relative_to(place) for place in allowed):
        raise ConfigurationError(f"{FILE}: weights: {name!r} leads to {target}, outside of the model folder {home}")
    return path


def _file_in(folder: Path) -> Path:
    path = folder / FILE
    if not os.path.lexists(path) and folder.is_dir():
        raise ConfigurationError(f"{FILE}: not found in {folder}; is this a model folder?")
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder; a model folder with a {FILE} is expected")
    return path


def _shown(keys: list[str]) -> str:
    more = len(keys) - MAX_SHOWN
    names = [key if key.isprintable() and len(key) <= 80 else repr(key[:80]) for key in keys[:MAX_SHOWN]]
    return ", ".join([*names, *([f"and {more} more"] if more > 0 else [])])


def _variant_of_task(task: object) -> str:
    """The variant that a hub folder of this task overlays: the one in our own layout that is named like the task."""
    tasks = [name for name in variants() if read_object(data.configuration_folder() / name / FILE).get("task") == name]
    if task not in tasks:
        raise ConfigurationError(
            f'{FILE}: task: {task!r:.80} has no shipped configuration to overlay (and "format" is not {FORMAT!r}); '
            f"{nearest(str(task), tasks)}"
        )
    return str(task)
