"""The two published schedules, a small nonlinear network, and a runner, for the tests beside this file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from i2vgen_ms.diffusion.samplers.sampler import Noise, Sampler, Step
from i2vgen_ms.diffusion.schedule import NoiseSchedule, linear_sd, logsnr_cosine_interp
from tests.oracle import published

SHAPE = (2, 4, 3, 4, 5)


def stage_1() -> NoiseSchedule:
    return linear_sd(timesteps=1000, first_beta=0.00085, last_beta=0.012)


def stage_2(*, zero_terminal_snr: bool = True) -> NoiseSchedule:
    return logsnr_cosine_interp(
        timesteps=1000,
        logsnr_min=-15.0,
        logsnr_max=15.0,
        scale_min=2.0,
        scale_max=4.0,
        zero_terminal_snr=zero_terminal_snr,
    )


def published_stage_1(mean_type: str = "v") -> Any:
    betas = published("image_to_video.utils.shedule").beta_schedule("linear_sd", 1000, 0.00085, 0.0120)
    diffusion = published("image_to_video.utils.diffusion").GaussianDiffusion
    return diffusion(betas, mean_type=mean_type, var_type="fixed_small")


def published_stage_2(prediction: str = "v") -> Any:
    sigmas = published("video_to_video.utils.schedules_sdedit").noise_schedule(
        schedule="logsnr_cosine_interp", n=1000, zero_terminal_snr=True, scale_min=2.0, scale_max=4.0
    )
    return published("video_to_video.utils.diffusion_sdedit").GaussianDiffusion_SDEdit(sigmas, prediction)


class Network:
    """Mixes channels, bends them, and depends on the timestep and on a condition y (b c); notes what it was given."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.weight = torch.randn(4, 4, generator=generator) / 2
        self.timesteps: list[float] = []
        self.batches: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        self.timesteps.append(float(t[0]))
        self.batches.append(x.shape[0])
        mixed = torch.einsum("bcfhw,cd->bdfhw", x, self.weight.to(x))
        phase = torch.sin(t.to(x) / 150).reshape(-1, 1, 1, 1, 1)
        return torch.tanh(mixed + y.reshape(*y.shape, 1, 1, 1)) + phase * x.roll(1, dims=2)


def conditions() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(6)
    return {"y": torch.randn(2, 4, generator=generator)}, {"y": torch.zeros(2, 4)}


def latents(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def silence(sigma: float, sigma_next: float) -> Tensor:
    raise AssertionError("no noise was to be asked for")


def run(
    sampler: Sampler, denoise: Callable[[Tensor, float], Tensor], x: Tensor, sigmas: Sequence[float], noise: Noise
) -> list[Step]:
    return list(sampler(denoise, x, sigmas, noise))
