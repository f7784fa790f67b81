"""Architecture numbers of OpenCLIP's vision and text towers, by the name under which open_clip lists them.

Reads open_clip's own model_configs/*.json without importing it (that would import torch).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from i2vgen_ms.config.json_file import read_object
from i2vgen_ms.errors import ConfigurationError, nearest

# open_clip's defaults for the keys that its files leave out
DEFAULTS = {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12, "head_width": 64, "mlp_ratio": 4.0}
TEXT_DEFAULTS = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0}
WHERE = "configuration.json: model.model_cfg.embedder.arch"


def vision_of(arch: str | dict[str, Any]) -> dict[str, Any]:
    """The options embed_dim, vision, activation of the image encoder for an architecture's name or object."""
    values = _architecture(arch, "vision_cfg", DEFAULTS)
    return {
        "embed_dim": values["embed_dim"],
        "vision": DEFAULTS | values["vision_cfg"],
        "activation": _activation(values),
    }


def text_of(arch: str | dict[str, Any]) -> dict[str, Any]:
    """The options text, activation of the text encoder for an architecture's name or object.

    The encoder leaves the projection out, so that `embed_dim` changes nothing of it.
    """
    values = _architecture(arch, "text_cfg", TEXT_DEFAULTS)
    return {"text": TEXT_DEFAULTS | values["text_cfg"], "activation": _activation(values)}


def _architecture(arch: str | dict[str, Any], section: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture, if its tower `section` is a plain transformer of these numbers; the other is not looked at."""
    values = _named(arch) if isinstance(arch, str) else arch
    tower = values.get(section)
    if not isinstance(tower, dict) or not isinstance(values.get("embed_dim"), int):
        raise ConfigurationError(f"{WHERE}: an object with embed_dim and {section} is expected, got {arch!r:.80}")
    known = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    for key, keys in (("", [*values]), (f"{section}.", [*tower])):
        names = numbers if key else known
        for name in keys:
            if name not in names:
                kind = section.removesuffix("_cfg")
                raise ConfigurationError(f"{WHERE}.{key}{name}: not a plain {kind} transformer; {nearest(name, names)}")
    if not isinstance(values.get("quick_gelu", False), bool):
        raise ConfigurationError(f"{WHERE}.quick_gelu: true or false is expected, got {values['quick_gelu']!r:.40}")
    return values


def _activation(values: dict[str, Any]) -> str:
    return "quick_gelu" if values.get("quick_gelu") else "gelu"


def _named(name: str) -> dict[str, Any]:
    spec = importlib.util.find_spec("open_clip")
    folders = [Path(place) / "model_configs" for place in (spec.submodule_search_locations or [])] if spec else []
    files = {file.stem: file for folder in folders for file in folder.glob("*.json")}
    if name not in files:
        close = nearest(name, files).split(" Known:")[0]  # there are far more than a hundred
        raise ConfigurationError(f"{WHERE}: open_clip has no architecture {name!r:.60}; {close}")
    return read_object(files[name])
