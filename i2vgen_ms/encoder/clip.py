"""What the picture encoder and the text encoder share: reading the numbers of an OpenCLIP architecture.

The layers are open_clip's own classes, of any release from 2.26 to 3.x; one tower is built and never the other. It
knows nothing of files, devices or pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from open_clip.transformer import QuickGELU
from torch import nn

from i2vgen_ms.errors import ConfigurationError, nearest

Numbers = Mapping[str, int | float]


@dataclass(frozen=True)
class VisionNumbers:
    """A vision transformer (Dosovitskiy et al. 2020): sides in pixels, widths in channels."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    head_width: int
    mlp_ratio: float


@dataclass(frozen=True)
class TextNumbers:
    """A causal text transformer (Radford et al. 2021): lengths in tokens, widths in channels."""

    context_length: int
    vocab_size: int
    width: int
    heads: int
    layers: int
    mlp_ratio: float


Kind = TypeVar("Kind", VisionNumbers, TextNumbers)


def read_numbers(kind: type[Kind], numbers: Numbers, *, name: str) -> Kind:
    """`numbers` as a `kind`; `name` is where they stand in the configuration.

    Raises: ConfigurationError for a missing or unknown key, and for a number that is not positive or not whole.
    """
    whole = {field.name: field.type == "int" for field in dataclasses.fields(kind)}
    for key, value in numbers.items():
        if key not in whole:
            raise ConfigurationError(f"{name}.{key}: unknown key; {nearest(key, whole)}")
        if isinstance(value, bool) or not isinstance(value, int if whole[key] else (int, float)) or not value > 0:
            words = "a positive whole number" if whole[key] else "a positive number"
            raise ConfigurationError(f"{name}.{key} is {value!r}; it has to be {words}")
    missing = [key for key in whole if key not in numbers]
    if missing:
        raise ConfigurationError(f"{name} lacks {', '.join(missing)}")
    return kind(**numbers)  # type: ignore[arg-type]


def check_multiple(value: int, of: int, words: str) -> int:
    """`value // of`. Raises: ConfigurationError, beginning with `words`, when it is not whole."""
    if value % of:
        raise ConfigurationError(f"{words}: {value} is not a multiple of {of}")
    return value // of


def activation_class(name: str) -> type[nn.Module]:
    """The feed-forward layers' activation, `gelu` or `quick_gelu`. Raises: ConfigurationError for another name."""
    known: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGELU}
    if name not in known:
        raise ConfigurationError(f"encoder.activation {name!r} is unknown; {nearest(name, known)}")
    return known[name]
