"""The midpoint method on the probability flow, as a sampler of i2vgen_ms."""

import math

from i2vgen_ms.diffusion.samplers.sampler import Step, intervals


class Midpoint:
    """The midpoint method: second order, two evaluations a step."""

    order = 2
    noise = "none"
    discard_penultimate = False

    def __init__(self, *, where: float = 0.5) -> None:
        self.where = where

    def __call__(self, denoise, x, sigmas, noise):
        pairs = intervals(sigmas)
        for index, (sigma, sigma_next) in enumerate(pairs):
            x0 = denoise(x, sigma)
            if sigma == math.inf:
                x = (x0 + sigma_next * x) / math.hypot(1, sigma_next)
            else:
                scaled = x * math.hypot(1, sigma)
                middle = sigma + self.where * (sigma_next - sigma)
                halfway = scaled + (middle - sigma) * (scaled - x0) / sigma
                slope = (halfway - denoise(halfway / math.hypot(1, middle), middle)) / middle
                x = (scaled + (sigma_next - sigma) * slope) / math.hypot(1, sigma_next)
            yield Step(index, len(pairs), sigma_next, x, x0)
