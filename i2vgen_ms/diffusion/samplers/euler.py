"""Euler's method on the probability flow in sigma (Karras et al. 2022, algorithm 1 without churn).

It knows denoise and levels only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor

from i2vgen_ms.diffusion.samplers.ddim import DDIM
from i2vgen_ms.diffusion.samplers.sampler import Denoise, Noise, NoiseKind, Step


class Euler:
    """`d(x / a) = (x / a - x0) / sigma d sigma`, one straight step a level: the same step as DDIM without noise."""

    order: ClassVar[int] = 1
    noise: ClassVar[NoiseKind] = "none"
    discard_penultimate: ClassVar[bool] = False

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        return DDIM(eta=0.0)(denoise, x, sigmas, noise)
