"""The paint of the procedural world: backgrounds, textures, marks and the camera's bars, as tensors of numbers.

Given places, tensors of equal or matching shapes; it knows no scene. As in shapes.py only operations that IEEE 754
rounds exactly are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2vgen_ms.world.shapes import length

WHITE, BLACK = 0.98, 0.05  # brightness of marks and bars


def send(device: torch.device, *columns: Any) -> list[Tensor]:
    """Numbers `n f` (or `n 1`) on the device as float32 `n f 1 1`, in one transfer."""
    table = np.stack(np.broadcast_arrays(*columns)).astype(np.float32)[..., None, None]
    return list(torch.from_numpy(table).to(device, non_blocking=True))


def wave(x: Tensor) -> Tensor:
    """A smooth wave of period 1 between 0 and 1, with 0 at whole numbers."""
    rising = ((x - x.floor()) * 2 - 1).abs()
    return 1 - rising * rising * (3 - rising * 2)


def pattern(kinds: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The background's pattern around 0: kind 0 none, 1 waves, 2 spots. x, y in periods, along its own axes."""
    waves = wave(x + wave(y * 0.5) * 0.35) - 0.5
    spots = wave(x) * wave(y)
    spots = spots * spots - 0.25
    return torch.where(kinds == 1, waves, torch.where(kinds == 2, spots, torch.zeros_like(waves)))


def texture(kinds: Tensor, x: Tensor, y: Tensor, sharp: Tensor) -> Tensor:
    """How much of the darker tone there is, 0 to 1: kind 0 none, 1 stripes, 2 dots, 3 checks.

    x, y: in radii of the thing. sharp: pixels a radius, by which edges are one pixel soft.
    """
    across, along = _sawtooth(x, 0.72), _sawtooth(y, 0.72)
    stripes = (across * sharp + 0.5).clamp(0, 1)
    dots = ((0.23 - length(across - 0.18, along - 0.18)) * sharp + 0.5).clamp(0, 1)
    checks = ((_product(_sawtooth(x, 0.9), _sawtooth(y, 0.9))) * sharp + 0.5).clamp(0, 1)
    none = torch.zeros_like(stripes)
    return torch.where(kinds == 1, stripes, torch.where(kinds == 2, dots, torch.where(kinds == 3, checks, none)))


def bar(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    """Distance to a bar with round ends, which lies along x if it is wider than high; around the origin."""
    thick = min(half_width, half_height)
    x, y = x.abs() - (half_width - thick), y.abs() - (half_height - thick)
    return length(x.clamp(min=0), y.clamp(min=0)) - thick


def _sawtooth(x: Tensor, period: float) -> Tensor:
    """Distance from the nearest edge of stripes of half a `period`: positive inside them."""
    position = x / period + 0.25
    return (0.25 - ((position - position.floor()) - 0.5).abs()) * period


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Distance to the edges of the checks of two families of stripes."""
    nearest = torch.minimum(first.abs(), second.abs())
    return torch.where((first > 0) == (second > 0), nearest, -nearest)
