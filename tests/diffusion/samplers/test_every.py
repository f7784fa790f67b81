"""What every sampler keeps, with every spacing: the listed parts are tested because they are listed."""

from __future__ import annotations

import math
import random
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from i2vgen_ms import errors
from i2vgen_ms.catalogue import names, resolve
from i2vgen_ms.diffusion import noise as noises
from i2vgen_ms.diffusion.denoiser import Denoiser
from i2vgen_ms.diffusion.samplers.dpmpp_2m import DPMpp2M
from i2vgen_ms.diffusion.samplers.dpmpp_2m_sde import DPMpp2MSDE
from i2vgen_ms.diffusion.samplers.sampler import Step
from i2vgen_ms.diffusion.schedule import scales
from i2vgen_ms.diffusion.spacing import grid
from tests.diffusion.cases import Network, conditions, latents, run, silence, stage_1, stage_2

SAMPLERS = list(names("samplers"))
SPACINGS = list(names("spacings"))


def sample(name: str, sigmas: list[float], denoise, x: Tensor, seed: int = 1) -> list[Step]:
    sampler = resolve("samplers", name)()
    generator = torch.Generator().manual_seed(seed)
    return run(sampler, denoise, x, sigmas, noises.make(sampler.noise, generator=generator, sigmas=sigmas, like=x))


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("make", [stage_1, stage_2])
def test_exactly_the_asked_steps_all_finite_and_repeatable(make, name: str, spacing: str, steps: int) -> None:
    schedule, x = make(), latents()
    before = x.clone()
    denoise = Denoiser(predict=lambda x, t: Network()(x, t, **conditions()[0]), schedule=schedule, prediction="v")
    sampler = resolve("samplers", name)()
    sigmas = grid(resolve("spacings", spacing), schedule, sampler, steps)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = sample(name, sigmas, denoise, x), sample(name, sigmas, denoise, x)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    assert [(step.index, step.steps, step.sigma) for step in first] == [(i, steps, sigmas[i + 1]) for i in range(steps)]
    for step, again in zip(first, second, strict=True):
        assert bool(torch.isfinite(step.x).all())
        assert step.x.dtype == step.x0.dtype == torch.float32
        assert torch.equal(step.x, again.x)
    assert torch.equal(x, before)
    if sampler.noise != "none" and name != "ddim" and steps > 2:
        assert not torch.equal(first[-1].x, sample(name, sigmas, denoise, x, seed=2)[-1].x)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("make", [stage_1, stage_2])
def test_one_known_picture_is_found(make, name: str, spacing: str) -> None:
    """Where the data is one point, every sampler must end on it, with the noise of the last level and no other."""
    schedule, picture = make(), latents(4, torch.float64)
    sampler = resolve("samplers", name)()
    for steps in (1, 2, 12):
        sigmas = grid(resolve("spacings", spacing), schedule, sampler, steps)
        a, s = scales(sigmas[0])
        x = a * picture + s * latents(5, torch.float64)
        last = sample(name, sigmas, lambda x, sigma: picture, x)[-1].x
        a, s = scales(sigmas[-1])
        rest = last - a * picture
        if s == 0:
            torch.testing.assert_close(rest, torch.zeros_like(rest), rtol=0, atol=1e-12)
        else:
            assert float(rest.std()) == pytest.approx(s, rel=0.2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_second_level_of_infinite_grids_has_the_right_amount_of_noise(name: str) -> None:
    picture = 0.5 * torch.ones(1, 4, 2, 40, 40)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(9))
    sigmas = [math.inf, 3.0, 1.0, 0.25]
    for step in sample(name, sigmas, lambda x, sigma: picture, noise):
        a, s = scales(step.sigma)
        rest = (step.x - a * picture) / s
        assert float(rest.mean()) == pytest.approx(0.0, abs=0.05)
        assert float(rest.std()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_idle_step_changes_nothing(name: str) -> None:
    x = latents(1, torch.float64)
    network = Network()

    def denoise(x: Tensor, sigma: float) -> Tensor:
        t = torch.full((2,), 100.0, dtype=torch.float64)
        return network(x, t, conditions()[0]["y"].double())

    plain = sample(name, [2.0, 1.0, 0.5], denoise, x)
    idle = sample(name, [2.0, 2.0, 1.0, 0.5], denoise, x)
    torch.testing.assert_close(idle[0].x, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(idle[1].x, plain[0].x, rtol=0, atol=1e-12)
    assert bool(torch.isfinite(idle[-1].x).all())


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "sigmas", [[], [1.0], [1.0, 2.0], [2.0, 0.0, 0.0], [math.inf, math.inf, 0.0], [1.0, -1.0], [math.nan, 0.0]]
)
def test_levels_that_rise_or_end_early_are_refused(name: str, sigmas: list[float]) -> None:
    with pytest.raises(errors.ArgumentError, match=r"sigmas=.*level"):
        run(resolve("samplers", name)(), lambda x, sigma: x, latents(), sigmas, silence)


def test_steps_come_one_at_a_time() -> None:
    for name in SAMPLERS:
        calls: list[float] = []

        def denoise(x: Tensor, sigma: float, calls: list[float] = calls) -> Tensor:
            calls.append(sigma)
            return x

        sigmas = [3.0, 2.0, 1.0, 0.5, 0.0]
        sampler = resolve("samplers", name)()
        noise = noises.make(sampler.noise, generator=torch.Generator().manual_seed(1), sigmas=sigmas, like=latents())
        steps = iter(sampler(denoise, latents(), sigmas, noise))
        assert not calls
        next(steps)
        assert set(calls) <= {3.0, 2.0}


def test_the_sde_solver_without_noise_is_the_ode_solver() -> None:
    schedule, x = stage_2(), latents()
    denoise = Denoiser(predict=lambda x, t: Network()(x, t, **conditions()[0]), schedule=schedule, prediction="v")
    sigmas = grid(resolve("spacings", "trailing"), schedule, DPMpp2M(), 12)
    one = run(DPMpp2MSDE(eta=0.0), denoise, x, sigmas, silence)[-1].x
    assert torch.equal(one, run(DPMpp2M(), denoise, x, sigmas, silence)[-1].x)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(errors.ConfigurationError, match="eta"):
        resolve("samplers", "ddim")(eta=1.5)
    with pytest.raises(errors.ConfigurationError, match="eta"):
        resolve("samplers", "euler_a")(eta=-0.1)
    with pytest.raises(errors.ConfigurationError, match="s_noise"):
        resolve("samplers", "dpmpp_2m_sde")(s_noise=-1.0)
