"""The noise schedule: how much of the data is left at each timestep.

Given the numbers of `diffusion.schedule` in configuration.json; holds float64 numbers on the CPU. It does not know how
many steps a sampler takes, nor which timesteps it visits (spacing.py).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from i2vgen_ms.errors import ArgumentError, ConfigurationError, nearest

Time = TypeVar("Time", float, Tensor)

START_SCALES = ("published", "exact")


def scales(sigma: float) -> tuple[float, float]:
    """`(a, s)` of the variance-preserving state at noise level sigma: `a = 1 / sqrt(1 + sigma^2)`, `s = sigma a`."""
    if sigma == math.inf:
        return 0.0, 1.0
    a = 1.0 / math.hypot(1.0, sigma)
    return a, sigma * a


class NoiseSchedule:
    """The levels `alpha(t)`, `sigma_vp(t)` and `sigma(t) = sigma_vp / alpha` of timesteps 0 (least noise) to n - 1.

    alphas_cumprod: float64, shape (n,), strictly falling, in (0, 1); the last may be 0 (zero terminal SNR), and then
    the last sigma is infinite.

    Between two timesteps log sigma is linear, as in k-diffusion. Only beside an infinite sigma, where that says
    nothing, alpha is linear, so that every t has its own level.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        squares = alphas_cumprod.detach().to("cpu", torch.float64)
        if squares.ndim != 1 or len(squares) < 2:
            raise ConfigurationError(f"a schedule needs at least 2 timesteps in one row, not {tuple(squares.shape)}")
        falls = bool((squares[1:] < squares[:-1]).all())
        inside = bool((squares[:-1] > 0).all() and (squares < 1).all() and squares[-1] >= 0)
        if not (falls and inside):
            raise ConfigurationError(
                "a schedule must lose signal at every timestep: alphas_cumprod must fall strictly inside (0, 1), "
                f"but runs from {float(squares[0])} to {float(squares[-1])}"
            )
        self.alphas_cumprod = squares
        self.timesteps = len(squares)
        self._alphas: list[float] = squares.sqrt().tolist()
        self._sigmas_vp: list[float] = (1 - squares).sqrt().tolist()
        self._sigmas = [s / a if a > 0 else math.inf for a, s in zip(self._alphas, self._sigmas_vp, strict=True)]

    def alpha(self, t: Time) -> Time:
        """The factor of the data at timestep t (0 <= t <= n - 1, also between timesteps): float, or float64 tensor."""
        return _each(lambda u: self._alphas[int(u)] if u.is_integer() else scales(self._sigma(u))[0], self._inside(t))

    def sigma_vp(self, t: Time) -> Time:
        """The factor of the noise in the variance-preserving state at timestep t."""
        return _each(
            lambda u: self._sigmas_vp[int(u)] if u.is_integer() else scales(self._sigma(u))[1], self._inside(t)
        )

    def sigma(self, t: Time) -> Time:
        """Noise-to-data ratio at timestep t, in [0, inf]."""
        return _each(self._sigma, self._inside(t))

    def timestep(self, sigma: float) -> float:
        """The timestep (not rounded) whose level is sigma; sigma outside the schedule gives its nearest end."""
        if not sigma > self._sigmas[0]:
            return 0.0
        if sigma >= self._sigmas[-1]:
            return float(self.timesteps - 1)
        low = bisect_right(self._sigmas, sigma) - 1
        below, above = self._sigmas[low], self._sigmas[low + 1]
        if above == math.inf:
            return low + 1 - scales(sigma)[0] / self._alphas[low]
        return low + math.log(sigma / below) / math.log(above / below)

    def add_noise(self, x0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """`alpha(t) x0 + sigma_vp(t) noise`, like x0 in shape; t is one number, or a tensor (b,) with one per item."""
        a, s = self.alpha(t), self.sigma_vp(t)
        if isinstance(a, Tensor) and isinstance(s, Tensor):
            shape = (-1,) + (1,) * (x0.ndim - 1)
            return a.reshape(shape).to(x0) * x0 + s.reshape(shape).to(x0) * noise
        return a * x0 + s * noise

    def _sigma(self, t: float) -> float:
        low = int(t)
        weight = t - low
        if weight == 0:
            return self._sigmas[low]
        below, above = self._sigmas[low], self._sigmas[low + 1]
        if above == math.inf:
            a = self._alphas[low] * (1 - weight)
            return math.sqrt((1 - a) * (1 + a)) / a
        return math.exp((1 - weight) * math.log(below) + weight * math.log(above))

    def _inside(self, t: Time) -> Time:
        low, high = (float(t.min()), float(t.max())) if isinstance(t, Tensor) else (t, t)
        if not (low >= 0 and high <= self.timesteps - 1):
            raise ArgumentError(f"timestep {t} lies outside the schedule: it must be in 0..{self.timesteps - 1}")
        return t


def start_timestep(schedule: NoiseSchedule, strength: float) -> int:
    """The timestep that a clip is noised to, for a strength in (0, 1]; 0.6 of 1000 timesteps is timestep 599."""
    return max(0, round(strength * schedule.timesteps) - 1)


def start_scale(schedule: NoiseSchedule, timestep: float, mode: str) -> float:
    """The factor on a noised latent `x_t` before a sampler starts from it at `timestep`.

    A sampler's state is `x_t` itself, so `exact` is 1. The published solvers keep `x_t / alpha` as their state and
    obtain it as `x_t * sigma` instead, right for pure noise only; seen from the variance-preserving state that is a
    factor `sigma * alpha = sigma_vp(timestep)` (0.97236 at timestep 599 of the published stage 2).
    """
    if mode not in START_SCALES:
        raise ArgumentError(f"start_scale={mode!r} is unknown: {nearest(mode, START_SCALES)}")
    # published: the start is too small by sigma_vp
    return schedule.sigma_vp(float(timestep)) if mode == "published" else 1.0


def linear(*, timesteps: int, first_beta: float, last_beta: float, zero_terminal_snr: bool = False) -> NoiseSchedule:
    """Betas in equal steps (Ho et al. 2020, DDPM)."""
    _check_betas(timesteps, first_beta, last_beta)
    return _from_betas(torch.linspace(first_beta, last_beta, timesteps, dtype=torch.float64), zero_terminal_snr)


def linear_sd(*, timesteps: int, first_beta: float, last_beta: float, zero_terminal_snr: bool = False) -> NoiseSchedule:
    """Square roots of the betas in equal steps (Rombach et al. 2022, Stable Diffusion)."""
    _check_betas(timesteps, first_beta, last_beta)
    roots = torch.linspace(math.sqrt(first_beta), math.sqrt(last_beta), timesteps, dtype=torch.float64)
    return _from_betas(roots**2, zero_terminal_snr)


def quadratic(*, timesteps: int, first_beta: float, last_beta: float, zero_terminal_snr: bool = False) -> NoiseSchedule:
    """The published name for the formula of linear_sd; there it differs in its default betas only."""
    return linear_sd(
        timesteps=timesteps, first_beta=first_beta, last_beta=last_beta, zero_terminal_snr=zero_terminal_snr
    )


def cosine(*, timesteps: int, zero_terminal_snr: bool = False) -> NoiseSchedule:
    """Cosine of the time, betas at most 0.999 (Nichol and Dhariwal 2021, equation 17, s = 0.008)."""
    _check_timesteps(timesteps)
    levels = [math.cos((i / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(timesteps + 1)]
    betas = [min(1 - after / before, 0.999) for before, after in pairwise(levels)]
    return _from_betas(torch.tensor(betas, dtype=torch.float64), zero_terminal_snr)


def logsnr_cosine_interp(
    *,
    timesteps: int,
    logsnr_min: float,
    logsnr_max: float,
    scale_min: float,
    scale_max: float,
    zero_terminal_snr: bool = False,
) -> NoiseSchedule:
    """Cosine in log SNR, shifted for high resolutions, the shift itself moving from scale_min to scale_max.

    Hoogeboom et al. 2023, simple diffusion, equation 4: log SNR is shifted by `2 log(1 / scale)`, here with scale_min
    at the first timestep, scale_max at the last, and in proportion between. With zero_terminal_snr sigma_vp is
    stretched linearly up to 1 with its smallest value kept, as published (not as in `linear` and the others).
    """
    _check_timesteps(timesteps)
    if not logsnr_min < logsnr_max or not (scale_min > 0 and scale_max > 0):
        raise ConfigurationError(
            f"logsnr_cosine_interp needs logsnr_min < logsnr_max and positive scales, not logsnr {logsnr_min}.."
            f"{logsnr_max}, scales {scale_min}, {scale_max}"
        )
    # published: computed in float32; float64 here differs by rounding only
    noisiness = torch.linspace(0, 1, timesteps, dtype=torch.float64)
    last, first = math.atan(math.exp(-0.5 * logsnr_min)), math.atan(math.exp(-0.5 * logsnr_max))
    plain = -2 * torch.log(torch.tan(first + noisiness * (last - first)))
    shift = noisiness * 2 * math.log(1 / scale_max) + (1 - noisiness) * 2 * math.log(1 / scale_min)
    sigmas_vp = torch.sigmoid(-(plain + shift)).sqrt()
    if not zero_terminal_snr:
        return NoiseSchedule(torch.sigmoid(plain + shift))
    low, high = sigmas_vp.min(), sigmas_vp.max()
    short_of_noise = (high - sigmas_vp) * (1 - low) / (high - low)  # 1 - sigma_vp, stretched: exactly 0 at the end
    return NoiseSchedule(short_of_noise * (2 - short_of_noise))


def _from_betas(betas: Tensor, zero_terminal_snr: bool) -> NoiseSchedule:
    squares = torch.cumprod(1 - betas, dim=0)
    if zero_terminal_snr:
        # Lin et al. 2023, algorithm 1: shift and stretch sqrt(alphas_cumprod), the first value kept, the last 0
        roots = squares.sqrt()
        squares = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    return NoiseSchedule(squares)


def _check_timesteps(timesteps: int) -> None:
    if timesteps < 2:
        raise ConfigurationError(f"timesteps must be at least 2, not {timesteps}")


def _check_betas(timesteps: int, first_beta: float, last_beta: float) -> None:
    _check_timesteps(timesteps)
    if not (0 < first_beta < 1 and 0 < last_beta < 1):
        raise ConfigurationError(f"first_beta and last_beta must lie in (0, 1), not {first_beta} and {last_beta}")


def _each(function: Callable[[float], float], t: Time) -> Time:
    if isinstance(t, Tensor):
        values = [function(float(u)) for u in t.flatten().tolist()]
        return torch.tensor(values, dtype=torch.float64).reshape(t.shape)
    return function(float(t))
