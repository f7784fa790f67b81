"""DDIM (Song et al. 2021): the first-order step, with as much fresh noise as wished.

It knows denoise, levels and noise only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor

from i2vgen_ms.diffusion.samplers.sampler import Denoise, Noise, NoiseKind, Step, intervals
from i2vgen_ms.diffusion.schedule import scales
from i2vgen_ms.errors import ConfigurationError


class DDIM:
    """Generalised DDIM, equation 12 of the paper.

    eta: 0 follows the probability flow without noise; 1 is the ancestral DDPM step; in between the noise is scaled.
    """

    order: ClassVar[int] = 1
    noise: ClassVar[NoiseKind] = "independent"
    discard_penultimate: ClassVar[bool] = False

    def __init__(self, *, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise ConfigurationError(f"eta must lie in 0..1, not {eta}: there is no more noise to replace")
        self.eta = eta

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        pairs = intervals(sigmas)
        for index, (sigma, sigma_next) in enumerate(pairs):
            x0 = denoise(x, sigma)
            x = transition(x, x0, sigma, sigma_next, noise, self.eta)
            yield Step(index, len(pairs), sigma_next, x, x0)


def transition(x: Tensor, x0: Tensor, sigma: float, sigma_next: float, noise: Noise, eta: float) -> Tensor:
    """From the state x at sigma to sigma_next, if x0 is the clean latent; at sigma = infinity x itself is the noise.

    Of the noise that sigma_next needs, the share `eta^2 (1 - (sigma_next / sigma)^2)` in variance is fresh, the rest is
    the noise seen in x.
    """
    a, s = scales(sigma)
    a_next, s_next = scales(sigma_next)
    fresh = eta * math.sqrt(1 - (sigma_next / sigma) ** 2)
    eps = (x - a * x0) / s
    x = a_next * x0 + s_next * math.sqrt(1 - fresh**2) * eps
    if fresh * s_next > 0:
        x = x + s_next * fresh * noise(sigma, sigma_next)
    return x
