"""The encoder's answer: a normal distribution over latents, one mean and one variance a value.

It is given the two halves of the encoder's output and the factor that brings latents to unit size. It draws no noise of
its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from i2vgen_ms.errors import ArgumentError

# published: logarithms of variances outside of this range are cut to it
LOGVAR_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class Posterior:
    """A diagonal normal distribution (Kingma and Welling 2013).

    mean, logvar: `b f h w c`, as the network gives them; logvar is already inside `LOGVAR_RANGE`.
    scale: the factor from these values to the latents that the diffusion sees; `sample` and `mode` apply it.
    """

    mean: Tensor
    logvar: Tensor
    scale: float

    @classmethod
    def from_moments(cls, moments: Tensor, *, scale: float) -> Posterior:
        """From the encoder's last layer, `b f h w 2c`: means, then logarithms of variances."""
        mean, logvar = moments.chunk(2, dim=-1)
        return cls(mean=mean, logvar=logvar.clamp(*LOGVAR_RANGE), scale=scale)

    def mode(self) -> Tensor:
        """The most likely latents, `b f h w c`, scaled."""
        return self.mean * self.scale

    def sample(self, noise: Tensor) -> Tensor:
        """Latents `b f h w c`, scaled, for unit normal `noise: b f h w c` (on any device, of any float type).

        Raises: ArgumentError when the noise has another shape than the latents.
        """
        if noise.shape != self.mean.shape:
            raise ArgumentError(
                f"the posterior's noise has the shape {tuple(noise.shape)}, the latents {tuple(self.mean.shape)} "
                "(b f h w c)"
            )
        deviation = torch.exp(0.5 * self.logvar)
        return (self.mean + deviation * noise.to(self.mean)) * self.scale
