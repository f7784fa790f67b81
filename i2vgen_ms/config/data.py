"""Where the data folders configuration/ and registry/ are: in the installed package, or beside it in a checkout."""

from __future__ import annotations

import os
from pathlib import Path

from i2vgen_ms.errors import ConfigurationError

BUNDLED = "i2vgen-ms"  # the owner of the ids of the models that come with the package
_PACKAGE = Path(__file__).resolve().parent.parent


def configuration_folder() -> Path:
    """The folder with one folder a model variant, and `kernels.json`."""
    return _folder("configuration")


def registry_folder() -> Path:
    """The folder with `parts/*.json` and `cards/*.md`."""
    return _folder("registry")


def bundled_folder(model: str | os.PathLike[str]) -> Path | None:
    """The folder of `i2vgen-ms/NAME`, whether it holds weights or not; None for any other name."""
    owner, _, name = os.fspath(model).partition("/")
    folder = configuration_folder() / name
    return folder if owner == BUNDLED and name and folder.parent == configuration_folder() and folder.is_dir() else None


def _folder(name: str) -> Path:
    installed = _PACKAGE / name  # a wheel carries the data inside the package
    checkout = _PACKAGE.parent / name  # a checkout or an editable install has it beside the package
    for folder in (installed, checkout):
        if folder.is_dir():
            return folder
    raise ConfigurationError(
        f"the data folder {name!r} is neither at {installed} nor at {checkout}; install i2vgen_ms again"
    )
