"""What the hub's cache on this machine holds of this package's models, and which models come with the package.

Given folders and ids; reads only names and configuration.json files, in every layout that ModelScope's clients have
used. Asks no network and imports nothing of ModelScope's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from i2vgen_ms.config import data
from i2vgen_ms.config.data import BUNDLED
from i2vgen_ms.config.json_file import read_object
from i2vgen_ms.errors import ConfigurationError

TASKS = {"image-to-video": "image-to-video-task-pipeline", "video-to-video": "video-to-video-pipeline"}
PUBLISHED_IDS = {
    f"{owner}/{name}": task
    for owner in ("damo", "iic")
    for name, task in (("Image-to-Video", "image-to-video"), ("Video-to-Video", "video-to-video"))
}
DEFAULT_REVISION = "master"  # what the hub calls it
ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class CachedModel:
    """One revision of one model in the cache. `revision` is None where an old cache layout does not tell it."""

    model: str
    revision: str | None
    folder: Path
    missing: tuple[str, ...]  # files that an interrupted download has left out

    def __str__(self) -> str:
        state = f", incomplete: {', '.join(self.missing)} missing" if self.missing else ""
        return f"{self.model} ({self.revision or 'unknown revision'}{state})"


def cache_folder() -> Path:
    """The root of the hub's cache: $MODELSCOPE_CACHE, or ~/.cache/modelscope."""
    return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()


def snapshot_folder(model: str, revision: str) -> Path:
    """Where ModelScope's clients keep `revision` of `model`."""
    return cache_folder() / "models" / model.replace("/", "--") / "snapshots" / revision


def entries(model: str) -> Iterator[CachedModel]:
    """The copies of `model` in the cache, newest layout first, incomplete ones too."""
    if not ID.fullmatch(model):
        return
    owner, name = model.split("/")
    root = cache_folder()
    for folder in sorted(root.glob(f"models/{owner}--{name}/snapshots/*")):
        missing = missing_files(folder)
        if missing is not None:
            yield CachedModel(model, folder.name, folder, missing)
    safe = name.replace(".", "___")
    old = [root / prefix / owner / last for prefix in ("models", "hub/models", "", "hub") for last in (safe, name)]
    for folder in dict.fromkeys(old):
        missing = missing_files(folder)
        if missing is not None:
            yield CachedModel(model, _old_revision(folder), folder, missing)


def cached() -> list[CachedModel]:
    """Every copy of a model of this package's tasks that is in the cache, incomplete ones too."""
    root = cache_folder()
    names = {path.parent.name.replace("--", "/", 1) for path in root.glob("models/*--*/snapshots")}
    for prefix in ("", "models/", "hub/", "hub/models/"):
        for path in root.glob(f"{prefix}*/*/configuration.json"):
            names.add(f"{path.parent.parent.name}/{path.parent.name.replace('___', '.')}")
    return [entry for name in sorted(names) for entry in entries(name)]


def bundled() -> dict[str, Path]:
    """Ids and folders of the models whose weights come with this package."""
    folders = sorted(path.parent for path in data.configuration_folder().glob("*/configuration.json"))
    return {f"{BUNDLED}/{folder.name}": folder for folder in folders if missing_files(folder) == ()}


def task_of(folder: Path) -> str | None:
    """The task of a model folder if it is one of ours, None otherwise, also for a folder that cannot be read."""
    try:
        values = read_object(folder / "configuration.json")
    except ConfigurationError:
        return None
    task, section = values.get("task"), values.get("pipeline", {})
    kind = section.get("type") if isinstance(section, dict) else None
    return task if isinstance(task, str) and task in TASKS and kind in (None, TASKS[task]) else None


def missing_files(folder: Path) -> tuple[str, ...] | None:
    """Names of weight files that `folder` lacks; None if it is not the folder of a model of ours."""
    if task_of(folder) is None:
        return None
    values = read_object(folder / "configuration.json")
    if "format" in values:
        arguments = values.get("weights")
        names = list(arguments.values()) if isinstance(arguments, dict) else []
    else:
        model = values.get("model")
        arguments = model.get("model_args") if isinstance(model, dict) else None
        arguments = arguments if isinstance(arguments, dict) else {}
        names = [name for key, name in arguments.items() if key.startswith("ckpt_")]
    return tuple(name for name in names if isinstance(name, str) and not (folder / name).is_file())


def describe() -> str:
    """One or two sentences about what can be used without the hub, for the end of an error."""
    text = "; ".join(str(entry) for entry in cached()) or "nothing of these tasks"
    return f"In the cache {cache_folder()}: {text}. With this package: {', '.join(bundled()) or 'no weights'}."


def _old_revision(folder: Path) -> str | None:
    """The revision that the older clients noted in the hidden file `.mv` beside the files."""
    try:
        text = (folder / ".mv").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"Revision:([^,\s]+)", text)
    return found.group(1) if found else None
