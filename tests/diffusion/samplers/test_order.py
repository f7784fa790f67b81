"""Truth: on Gaussian data the ideal denoiser and the exact law of the result are closed-form.

Everything is linear in (start, noises, mean), so one run over unit vectors gives a sampler's exact mean and variance;
no random number is drawn.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from i2vgen_ms.catalogue import names, resolve
from i2vgen_ms.diffusion.schedule import scales

MEAN, SPREAD = 0.7, 0.5
HIGH, LOW = 10.0, 0.05
STEPS = (160, 320)
SAMPLERS = list(names("samplers"))


class Recursion:
    """Coefficients of the result: [of the data's mean, of the start, of noise 1, of noise 2, ...]."""

    def __init__(self, sampler, steps: int) -> None:
        self.unit = torch.eye(steps + 2, dtype=torch.float64)
        self.drawn = 0
        sigmas = [HIGH * (LOW / HIGH) ** (i / steps) for i in range(steps + 1)]
        *_, last = sampler(self.ideal, self.unit[1], sigmas, self.noise)
        self.of_mean, self.of_start = float(last.x[0]), float(last.x[1])
        self.of_noise = last.x[2:]

    def ideal(self, x: Tensor, sigma: float) -> Tensor:
        a, s = scales(sigma)
        return (SPREAD**2 * a * x + s**2 * self.unit[0]) / (a**2 * SPREAD**2 + s**2)

    def noise(self, sigma: float, sigma_next: float) -> Tensor:
        self.drawn += 1
        return self.unit[1 + self.drawn]


def law(sigma: float) -> tuple[float, float]:
    """Exact mean and variance of the state at sigma."""
    a, s = scales(sigma)
    return a * MEAN, a**2 * SPREAD**2 + s**2


def marginal_errors(sampler, steps: int) -> tuple[float, float]:
    run = Recursion(sampler, steps)
    (start_mean, start_variance), (mean, variance) = law(HIGH), law(LOW)
    ours = run.of_start**2 * start_variance + float((run.of_noise**2).sum())
    return abs(run.of_mean * MEAN + run.of_start * start_mean - mean), abs(ours - variance)


def memory_error(sampler, steps: int, share: float) -> float:
    """How far the result's dependence on the start is off; share: of the reverse SDE's noise, 0 for the flow."""
    exact = ((SPREAD**2 + LOW**2) / (SPREAD**2 + HIGH**2)) ** ((1 + share) / 2) * scales(LOW)[0] / scales(HIGH)[0]
    return abs(Recursion(sampler, steps).of_start - exact)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_law_of_the_result_converges_with_the_declared_order(name: str, record_testsuite_property) -> None:
    sampler = resolve("samplers", name)()
    (mean_1, coarse), (mean_2, fine) = (marginal_errors(sampler, steps) for steps in STEPS)
    assert max(mean_1, mean_2) < 1e-12
    order = math.log2(coarse / fine)
    record_testsuite_property(f"order of {name}", order)
    assert order == pytest.approx(sampler.order, abs=0.1)
    assert fine < (0.01 if sampler.order == 1 else 1e-4)


@pytest.mark.parametrize(
    ("name", "options", "share"),
    [
        ("ddim", {}, 0.0),
        ("ddim", {"eta": 0.5}, 0.25),
        ("euler", {}, 0.0),
        ("heun", {}, 0.0),
        ("dpmpp_2m", {}, 0.0),
        ("dpmpp_2m_sde", {"eta": 0.5}, 0.5),
    ],
)
def test_the_path_of_the_mean_converges_with_the_declared_order(name: str, options: dict, share: float) -> None:
    sampler = resolve("samplers", name)(**options)
    coarse, fine = (memory_error(sampler, steps, share) for steps in STEPS)
    assert math.log2(coarse / fine) == pytest.approx(sampler.order, abs=0.1)
    coarse, fine = (marginal_errors(sampler, steps)[1] for steps in STEPS)
    assert math.log2(coarse / fine) == pytest.approx(sampler.order, abs=0.1)


@pytest.mark.parametrize("name", ["euler_a", "dpmpp_2m_sde"])
def test_with_all_noise_fresh_the_path_of_the_mean_is_exact(name: str) -> None:
    assert memory_error(resolve("samplers", name)(), 40, share=1.0) < 1e-12
