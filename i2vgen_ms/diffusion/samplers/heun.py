"""Heun's method on the probability flow in sigma (Karras et al. 2022, algorithm 2 without churn).

Two evaluations of denoise a step, but one in a step that starts at infinity or ends at 0. It knows denoise and levels
only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor

from i2vgen_ms.diffusion.samplers.ddim import transition
from i2vgen_ms.diffusion.samplers.sampler import Denoise, Noise, NoiseKind, Step, intervals
from i2vgen_ms.diffusion.schedule import scales


class Heun:
    """An Euler step, corrected by the mean of the slopes at its two ends.

    With `eps_next = eps + (x0 - x0_next) / sigma_next` at the far end the correction
    `a_next (sigma_next - sigma) (eps_next - eps) / 2` needs the two x0 only.
    """

    order: ClassVar[int] = 2
    noise: ClassVar[NoiseKind] = "none"
    discard_penultimate: ClassVar[bool] = False

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        pairs = intervals(sigmas)
        for index, (sigma, sigma_next) in enumerate(pairs):
            x0 = denoise(x, sigma)
            x = transition(x, x0, sigma, sigma_next, noise, eta=0.0)
            if sigma < math.inf and sigma_next > 0:
                a_next, _ = scales(sigma_next)
                x = x + 0.5 * a_next * (sigma / sigma_next - 1) * (denoise(x, sigma_next) - x0)
            yield Step(index, len(pairs), sigma_next, x, x0)
