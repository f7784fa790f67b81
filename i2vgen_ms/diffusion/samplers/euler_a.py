"""Ancestral Euler: step below the next level, then add fresh noise up to it (k-diffusion).

It knows denoise, levels and noise only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor

from i2vgen_ms.diffusion.samplers.ddim import DDIM
from i2vgen_ms.diffusion.samplers.sampler import Denoise, Noise, NoiseKind, Step


class EulerAncestral:
    """With `up = eta sigma_next sqrt(1 - (sigma_next / sigma)^2)` fresh: the same step as DDIM of that eta.

    eta: 1 is the ancestral step; 0 is Euler's. From sigma = infinity with eta 1 all noise is fresh.
    """

    order: ClassVar[int] = 1
    noise: ClassVar[NoiseKind] = "independent"
    discard_penultimate: ClassVar[bool] = False

    def __init__(self, *, eta: float = 1.0) -> None:
        self._ddim = DDIM(eta=eta)

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        return self._ddim(denoise, x, sigmas, noise)
