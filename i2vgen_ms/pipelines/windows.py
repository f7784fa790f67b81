"""Long clips: a network that is shown overlapping windows of the frames, its outputs blended.

It wraps any network over `b c f h w`; samplers and guidance see one network that takes any number of frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def spans(frames: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """First and last-plus-one frame of windows of `window` frames that overlap by at least `overlap`.

    >>> spans(10, 6, 2), spans(4, 6, 2)
    ([(0, 6), (4, 10)], [(0, 4)])
    """
    if frames <= window:
        return [(0, frames)]
    stride = max(1, window - overlap)
    starts = [*range(0, frames - window, stride), frames - window]
    return [(start, start + window) for start in starts]


def windowed(network: Callable[..., Tensor], *, window: int, overlap: int) -> Callable[..., Tensor]:
    """`network` for any number of frames: each window on its own, outputs averaged with weights that fade at its ends.

    With one window it is the network itself. Conditions are those of the whole clip (Bar-Tal et al. 2023,
    MultiDiffusion, equation 5, along time).
    """

    def blended(x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        places = spans(x.shape[2], window, overlap)
        if len(places) == 1:
            return network(x, t, **conditions)
        total, weights = torch.zeros_like(x), x.new_zeros(x.shape[2])
        for start, end in places:
            fade = _fade(end - start, overlap, opens=start > 0, closes=end < x.shape[2]).to(x)
            total[:, :, start:end] += network(x[:, :, start:end], t, **conditions) * fade[:, None, None]
            weights[start:end] += fade
        return total / weights[:, None, None]

    return blended


def _fade(length: int, overlap: int, *, opens: bool, closes: bool) -> Tensor:
    """Weights of a window's frames: rising over the overlap where a window came before, falling where one follows."""
    ramp = torch.arange(1, length + 1, dtype=torch.float32) / (overlap + 1)
    weights = torch.ones(length)
    if opens:
        weights = torch.minimum(weights, ramp)
    if closes:
        weights = torch.minimum(weights, ramp.flip(0))
    return weights
