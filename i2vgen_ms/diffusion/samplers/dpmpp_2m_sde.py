"""DPM-Solver++ (2M) SDE, midpoint form (Lu et al. 2022, DPM-Solver++, section 5): the published stage 2's solver.

It knows denoise, levels and noise only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor

from i2vgen_ms.diffusion.samplers.ddim import transition
from i2vgen_ms.diffusion.samplers.sampler import Denoise, Noise, NoiseKind, Step, intervals
from i2vgen_ms.diffusion.schedule import scales
from i2vgen_ms.errors import ConfigurationError


class DPMpp2MSDE:
    """Exact in the linear part, x0 extrapolated from the last two levels, fresh noise from a Brownian path.

    eta: the share of the reverse SDE's noise; 1 as published, 0 is the ODE solver dpmpp_2m.
    s_noise: factor on the fresh noise; 1 as published.
    """

    order: ClassVar[int] = 2
    noise: ClassVar[NoiseKind] = "brownian"
    discard_penultimate: ClassVar[bool] = True

    def __init__(self, *, eta: float = 1.0, s_noise: float = 1.0) -> None:
        if not (eta >= 0 and s_noise >= 0):
            raise ConfigurationError(f"eta and s_noise must not be negative, not {eta} and {s_noise}")
        self.eta = eta
        self.s_noise = s_noise

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        return multistep(denoise, x, sigmas, noise, self.eta, self.s_noise)


def multistep(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, eta: float, s_noise: float
) -> Iterator[Step]:
    """The steps, in `h = log(sigma / sigma_next)`:

        x_next = (s_next / s) e^(-eta h) x + a_next (1 - e^(-(1 + eta) h)) D + s_next sqrt(1 - e^(-2 eta h)) noise
        D = x0 + h / (2 h_last) (x0 - x0_last)

    A step that starts at infinity or ends at 0 has infinite h and is the first-order step without noise; its x0 is no
    history to extrapolate from, and neither is that of an idle step (h = 0).
    """
    pairs = intervals(sigmas)
    x0_last, h_last = x, 0.0
    for index, (sigma, sigma_next) in enumerate(pairs):
        x0 = denoise(x, sigma)
        if sigma == math.inf or sigma_next == 0:
            x = transition(x, x0, sigma, sigma_next, noise, eta=0.0)
        else:
            h = math.log(sigma / sigma_next)
            fresh = math.sqrt(-math.expm1(-2 * eta * h)) * s_noise
            (_, s), (a_next, s_next) = scales(sigma), scales(sigma_next)
            extrapolated = x0 + (0.5 * h / h_last) * (x0 - x0_last) if h_last > 0 else x0
            x = (s_next / s * math.exp(-eta * h)) * x - (a_next * math.expm1(-(1 + eta) * h)) * extrapolated
            if fresh > 0:
                x = x + s_next * fresh * noise(sigma, sigma_next)
            h_last = h
        x0_last = x0
        yield Step(index, len(pairs), sigma_next, x, x0)
