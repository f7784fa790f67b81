"""The models that settings name: a folder or a shipped variant as it is, an id in the hub's cache or downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from i2vgen_ms import hub
from i2vgen_ms.config import reader
from i2vgen_ms.training.settings import Settings

Kind = TypeVar("Kind", bound=Settings)


def located(settings: Kind, *, revision: str | None = None, local_files_only: bool = False) -> Kind:
    """The settings with folders in the place of ids. `revision` is that of `model`. Raises: HubError."""
    for path, wanted in (("model", revision), ("text_model", None)):
        name = getattr(settings, path, None)
        if name is not None and not Path(name).is_dir() and name not in reader.variants():
            folder = hub.resolve(name, wanted, local_files_only=local_files_only)
            settings = settings.replace(path, str(folder))
    return settings
