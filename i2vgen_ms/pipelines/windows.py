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


def windowing(window: Any) -> dict[str, Any]:
    """A call's argument `window` as the arguments that it stands for."""
    if window is None or window is False:
        return {}
    return {"long_clips": "window"} | ({} if window is True else {"overlap": window})


class Windowed:
    """`network` for any number of frames: each window on its own, outputs averaged with weights that fade at its ends.

    With one window it is the network itself. Conditions are those of the whole clip (Bar-Tal et al. 2023,
    MultiDiffusion, equation 5, along time). What the network says of itself beside being called holds for this one too
    (diffusion.guidance.Sharing).
    """

    def __init__(self, network: Callable[..., Tensor], *, window: int, overlap: int) -> None:
        self._network, self._window, self._overlap = network, window, overlap

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._network, name)

    def __call__(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        places = spans(x.shape[2], self._window, self._overlap)
        if len(places) == 1:
            return self._network(x, t, **conditions)
        total, weights = torch.zeros(()), x.new_zeros(x.shape[2])
        for start, end in places:
            fade = _fade(end - start, self._overlap, opens=start > 0, closes=end < x.shape[2], device=x.device).to(x)
            out = self._network(x[:, :, start:end], t, **conditions)
            if not start:
                total = out.new_zeros((*out.shape[:2], *x.shape[2:]))
            total[:, :, start:end] += out * fade[:, None, None]
            weights[start:end] += fade
        return total / weights[:, None, None]


def _fade(length: int, overlap: int, *, opens: bool, closes: bool, device: torch.device) -> Tensor:
    """Weights of a window's frames: rising over the overlap where a window came before, falling where one follows."""
    ramp = torch.arange(1, length + 1, dtype=torch.float32, device=device) / (overlap + 1)
    weights = torch.ones(length, device=device)
    if opens:
        weights = torch.minimum(weights, ramp)
    if closes:
        weights = torch.minimum(weights, ramp.flip(0))
    return weights
