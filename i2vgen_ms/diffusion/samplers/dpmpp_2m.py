"""DPM-Solver++ (2M) (Lu et al. 2022, algorithm 2): second order with one evaluation of denoise a step.

It knows denoise and levels only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor

from i2vgen_ms.diffusion.samplers.dpmpp_2m_sde import multistep
from i2vgen_ms.diffusion.samplers.sampler import Denoise, Noise, NoiseKind, Step


class DPMpp2M:
    """The multistep solver of the probability flow; the limit of the SDE solver without noise."""

    order: ClassVar[int] = 2
    noise: ClassVar[NoiseKind] = "none"
    discard_penultimate: ClassVar[bool] = False

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        return multistep(denoise, x, sigmas, noise, eta=0.0, s_noise=0.0)
