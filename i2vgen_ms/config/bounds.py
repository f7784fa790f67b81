"""Limits for the values of a part's options, by the option's name, so that no file asks for the impossible.

Types and names of options are the business of the part's signature; this table only keeps sizes sane before anything
is built from them: -3 layers, a billion channels, NaN, a list of a million entries.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic_core import PydanticCustomError

MAX_DEPTH = 8
MAX_LIST = 64
MAX_TEXT = 256
MAX_NUMBER = 2.0**53

CHANNELS = (1, 65536)
BOUNDS: dict[str, tuple[float, float]] = {
    "channels": CHANNELS,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "latent_channels": CHANNELS,
    "embed_channels": CHANNELS,
    "context_channels": CHANNELS,
    "head_channels": CHANNELS,
    "rotary_channels": CHANNELS,
    "embed_dim": CHANNELS,
    "head_width": CHANNELS,
    "extra_channels": (0, 65536),
    "width": (1, 65536),
    "image_size": (1, 8192),
    "patch_size": (1, 1024),
    "layers": (1, 512),
    "mlp_ratio": (0.01, 64),
    "multipliers": (1, 64),
    "residual_blocks": (1, 32),
    "attention_levels": (0, 32),
    "stem_heads": (1, 1024),
    "norm_groups": (1, 4096),
    "tokens": (1, 4096),
    "repeats": (1, 64),
    "buckets": (2, 4096),
    "max_distance": (2, 65536),
    "vertical_padding": (0, 16),
    "dropout": (0, 1),
    "scale_factor": (1e-6, 1e6),
    "chunk_bytes": (1, 2.0**50),
    "timesteps": (1, 100_000),
    "first_beta": (0, 1),
    "last_beta": (0, 1),
    "eta": (0, 1000),
    "scale": (-1000, 1000),
    "rescale": (0, 1),
    "crf": (0, 63),
    "threads": (1, 256),
    "std": (1e-6, 1e6),
}


def check_options(value: Any, path: tuple[str | int, ...] = (), bounds: tuple[float, float] | None = None) -> None:
    """Walks the options of a part; raises a pydantic error with the path below the part for the first bad value."""
    if len(path) > MAX_DEPTH:
        _refuse(path, f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not key.isidentifier() or len(key) > MAX_TEXT:
                _refuse(path, f"option names are identifiers, got {str(key)[:40]!r}")
            check_options(item, (*path, key), BOUNDS.get(key))
    elif isinstance(value, list | tuple):
        if len(value) > MAX_LIST:
            _refuse(path, f"a list of at most {MAX_LIST} entries is expected, got {len(value)}")
        for index, item in enumerate(value):
            check_options(item, (*path, index), bounds)
    elif isinstance(value, str):
        if len(value) > MAX_TEXT or not value.isprintable():
            _refuse(path, f"a printable text of at most {MAX_TEXT} characters is expected, got {value[:40]!r}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = bounds or (-MAX_NUMBER, MAX_NUMBER)
        if not math.isfinite(value) or not low <= value <= high:
            _refuse(path, f"a number from {low:.16g} to {high:.16g} is expected, got {_short(value)}")
    elif value is not None and not isinstance(value, bool):
        _refuse(path, f"JSON values only, got {type(value).__name__}")


def _short(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) or abs(value) < MAX_NUMBER else "an integer beyond 2**53"


def _refuse(path: tuple[str | int, ...], message: str) -> None:
    raise PydanticCustomError("option", "{message}", {"message": message, "path": path})
