"""Where the folder of a model is: given a path or an id, in this package, in the hub's cache, or downloaded.

    resolve(model, revision)    the folder; asks the network only for what is not here
    download(model, revision)   brings the cache up to date: resumes, verifies, checks the disk's space first
    cached()                    what of ours is in the cache

Only models of this package's two tasks count as cached, and only when every weight file that their configuration.json
names is there. Reading the cache imports nothing of ModelScope's; downloading uses its client, `modelscope_hub`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from i2vgen_ms.config.json_file import read_object
from i2vgen_ms.errors import HubError
from i2vgen_ms.hub.cache import (
    BUNDLED,
    DEFAULT_REVISION,
    ID,
    PUBLISHED_IDS,
    CachedModel,
    bundled,
    cache_folder,
    cached,
    describe,
    entries,
    task_of,
)

__all__ = [
    "PUBLISHED_IDS",
    "CachedModel",
    "HubWarning",
    "NotOursError",
    "bundled",
    "cache_folder",
    "cached",
    "download",
    "find",
    "is_ours",
    "offline",
    "resolve",
    "task_of",
]


class NotOursError(HubError):
    """The model is of another task than the two of this package."""


class HubWarning(UserWarning):
    """A cached copy is used although its revision is not known."""


def offline() -> bool:
    """Whether I2VGEN_MS_OFFLINE forbids the network."""
    return os.environ.get("I2VGEN_MS_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def resolve(
    model: str | os.PathLike[str],
    revision: str | None = None,
    *,
    local_files_only: bool = False,
    ignore: str | Sequence[str] | None = None,
) -> Path:
    """The folder of `model`: a folder's path as it is, an id of ours, a cached id, or else a download.

    A complete cached copy of the wanted revision is used without any request (`download` asks for changes). Raises
    HubError, within seconds if the hub cannot be reached, and says what is cached; NotOursError for another task.
    """
    name = os.fspath(model)
    path = Path(name)
    if name and path.is_dir():
        return path
    _check(name, revision)
    if name.startswith(f"{BUNDLED}/"):
        return _bundled(name)
    found = find(name, revision)
    if found is not None:
        return found.folder
    forbidden = "local_files_only" if local_files_only else "I2VGEN_MS_OFFLINE" if offline() else None
    try:
        if forbidden is None:
            return download(name, revision, only_ours=True, ignore=ignore)
        wanted = name if revision is None else f"{name} at revision {revision!r}"
        raise HubError(f"{wanted} is not in the cache, and {forbidden} forbids to ask the hub. {describe()}")
    except NotOursError:
        raise
    except HubError as error:
        for entry in entries(name):
            if entry.revision is None and not entry.missing:
                warnings.warn(f"using {entry.folder}, which may be another revision: {error}", HubWarning, stacklevel=2)
                return entry.folder
        raise


def find(model: str, revision: str | None = None) -> CachedModel | None:
    """The complete cached copy of `model` at `revision`; None if there is none.

    Without a revision: the hub's default branch, or else the only one that is cached.
    """
    complete = [entry for entry in entries(model) if not entry.missing]
    if revision is not None:
        return next((entry for entry in complete if entry.revision == revision), None)
    for name in (DEFAULT_REVISION, "main"):
        for entry in complete:
            if entry.revision == name:
                return entry
    return complete[0] if len(complete) == 1 else None


def is_ours(model: str | os.PathLike[str]) -> bool:
    """Whether `model` is known, without a request, to be of one of this package's two tasks."""
    name = os.fspath(model)
    path = Path(name)
    if name and path.is_dir():
        return task_of(path) is not None
    return name in PUBLISHED_IDS or name.startswith(f"{BUNDLED}/") or any(entries(name))


def download(
    model: str,
    revision: str | None = None,
    *,
    only_ours: bool = False,
    ignore: str | Sequence[str] | None = None,
) -> Path:
    """Downloads what is missing or changed of `model` into the hub's cache; returns the folder.

    Partial files are resumed, sizes and SHA-256 sums of the hub's list are verified, names that would leave the folder
    are refused, and the disk's space is checked before the first byte. `only_ours` stops after configuration.json, with
    NotOursError if the model is of another task, with ConfigurationError if that cannot be told. `ignore`: glob
    patterns of files that are not wanted.
    """
    from i2vgen_ms.hub.transfer import fetch

    _check(model, revision)
    if offline():
        raise HubError(f"{model} cannot be downloaded: I2VGEN_MS_OFFLINE forbids to ask the hub. {describe()}")
    patterns = [ignore] if isinstance(ignore, str) else list(ignore or ())
    for folder in fetch(model, revision or DEFAULT_REVISION, ignore=patterns):
        if only_ours and task_of(folder) is None:
            _check_readable(folder)
            raise NotOursError(f"{model} is not a model of this package's tasks; its configuration.json is at {folder}")
    return folder


def _check_readable(folder: Path) -> None:
    """Raises ConfigurationError for a configuration.json that says nothing of whose it is because it is damaged.

    Others might read it with less care, and do what it says.
    """
    path = folder / "configuration.json"
    if path.exists():
        read_object(path)


def _check(name: str, revision: str | None) -> None:
    if not ID.fullmatch(name):
        raise HubError(f"{name!r} is neither a folder that exists nor a model id (owner/name). {describe()}")
    if revision is not None and not all(part.strip(".") for part in revision.split("/")):
        raise HubError(f"{revision!r} is not the name of a revision")


def _bundled(name: str) -> Path:
    known = bundled()
    if name not in known:
        raise HubError(
            f"{name} is not a model that comes with this package; those that do: {', '.join(known) or 'none'}"
        )
    return known[name]
