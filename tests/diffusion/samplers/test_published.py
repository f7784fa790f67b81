"""Sameness with the published sampling loops: same latents, same network, same noise."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from i2vgen_ms.diffusion import noise as noises
from i2vgen_ms.diffusion.denoiser import Denoiser
from i2vgen_ms.diffusion.guidance import ClassifierFree
from i2vgen_ms.diffusion.samplers.ddim import DDIM
from i2vgen_ms.diffusion.samplers.dpmpp_2m_sde import DPMpp2MSDE
from i2vgen_ms.diffusion.samplers.heun import Heun
from i2vgen_ms.diffusion.schedule import NoiseSchedule, start_scale
from i2vgen_ms.diffusion.spacing import grid, published_ddim, trailing
from tests.diffusion.cases import (
    Network,
    conditions,
    latents,
    published_stage_1,
    published_stage_2,
    run,
    silence,
    stage_1,
    stage_2,
)
from tests.oracle import published, relative_error

SOLVERS = "video_to_video.utils.solvers_sdedit"


def denoiser(
    network: Network, schedule: NoiseSchedule, guidance: ClassifierFree, prediction: str = "v", rounding="published"
) -> Denoiser:
    positive, negative = conditions()
    return Denoiser(
        predict=lambda x, t: guidance(network, x, t, positive, negative),
        schedule=schedule,
        prediction=prediction,
        rounding=rounding,
    )


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
def test_ddim_equals_the_published_loop(prediction: str, record_testsuite_property) -> None:
    x, theirs, ours = latents(), Network(), Network()
    expected = published_stage_1(prediction).ddim_sample_loop(
        x, theirs, list(conditions()), guide_scale=3.0, ddim_timesteps=50, eta=0.0
    )
    schedule = stage_1()
    denoise = denoiser(ours, schedule, ClassifierFree(scale=3.0), prediction)
    steps = run(DDIM(eta=0.0), denoise, x, published_ddim(schedule, 50), silence)
    error = relative_error(steps[-1].x, expected)
    record_testsuite_property(f"ddim, {prediction}, 50 steps", error)
    assert error <= 1e-5
    assert ours.timesteps == theirs.timesteps[::2]


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_noise_equals_the_published_loop(monkeypatch, eta: float) -> None:
    x = latents()
    draws = torch.Generator().manual_seed(8)
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.randn(like.shape, generator=draws))
    expected = published_stage_1().ddim_sample_loop(x, Network(), conditions()[0], ddim_timesteps=50, eta=eta)
    schedule = stage_1()
    noise = noises.Independent(torch.Generator().manual_seed(8), x)
    denoise = denoiser(Network(), schedule, ClassifierFree(scale=1.0))
    steps = run(DDIM(eta=eta), denoise, x, published_ddim(schedule, 50), noise)
    assert relative_error(steps[-1].x, expected) <= 1e-5
    assert relative_error(steps[-1].x, x) > 0.1


def stage_2_pair(sampler, steps: int, solver: str, mode: str, rounding: str, noise=silence, timestep: int = 599):
    """(ours, theirs, timesteps ours, timesteps theirs) of a guided run of stage 2 from one noised latent."""
    theirs, ours, schedule = Network(), Network(), stage_2()
    noised = schedule.add_noise(0.8 * latents(1), float(timestep), latents(2))
    expected = published_stage_2().sample(
        noised,
        theirs,
        list(conditions()),
        guide_scale=7.5,
        guide_rescale=0.2,
        solver=solver,
        steps=steps,
        t_max=timestep,
        t_min=0,
        discretization="trailing",
    )
    sigmas = grid(trailing, schedule, sampler, steps, first_timestep=timestep)
    denoise = denoiser(ours, schedule, ClassifierFree(scale=7.5, rescale=0.2), rounding=rounding)
    x = noised * start_scale(schedule, timestep, mode)
    result = run(sampler, denoise, x, sigmas, noise)[-1].x
    return result, expected, ours.timesteps, theirs.timesteps[::2]


@pytest.mark.parametrize("steps", [30, 31, 50])
def test_heun_equals_the_published_solver(steps: int, record_testsuite_property) -> None:
    result, expected, ours, theirs = stage_2_pair(Heun(), steps, "heun", "published", "published")
    error = relative_error(result, expected)
    record_testsuite_property(f"heun, {steps} steps", error)
    assert error <= 1e-5
    assert ours == theirs
    assert len(ours) == 2 * steps - 1


class SharedPath:
    """Our Brownian path behind the published interface; levels that differ in the last float32 digits are the same."""

    def __init__(self, sigmas: list[float], like: torch.Tensor) -> None:
        self.levels = [sigma for sigma in sigmas if 0 < sigma < math.inf]
        self.path = noises.Brownian(21, sigmas, like)

    def __call__(self, sigma: float | torch.Tensor, sigma_next: float | torch.Tensor) -> torch.Tensor:
        return self.path(self.ours(float(sigma)), self.ours(float(sigma_next)))

    def ours(self, theirs: float) -> float:
        closest = min(self.levels, key=lambda level: abs(level - theirs))
        assert closest == pytest.approx(theirs, rel=5e-6)
        return closest


@pytest.mark.parametrize("steps", [30, 50])
def test_dpmpp_2m_sde_equals_the_published_solver(monkeypatch, steps: int, record_testsuite_property) -> None:
    sampler = DPMpp2MSDE()
    shared = SharedPath(grid(trailing, stage_2(), sampler, steps, first_timestep=599), latents())
    monkeypatch.setattr(published(SOLVERS), "BrownianTreeNoiseSampler", lambda *_: shared)
    result, expected, ours, theirs = stage_2_pair(sampler, steps, "dpmpp_2m_sde", "published", "published", shared)
    error = relative_error(result, expected)
    record_testsuite_property(f"dpmpp_2m_sde, {steps} steps", error)
    assert error <= 1e-5
    assert ours == theirs
    assert len(ours) == steps


def test_dpmpp_2m_sde_equals_the_published_solver_with_its_own_tree(monkeypatch, record_testsuite_property) -> None:
    """The published tree, given a seed, and the published float32 levels: then both paths are the same to the bit."""
    solvers = published(SOLVERS)
    tree = solvers.BrownianTreeNoiseSampler
    monkeypatch.setattr(solvers, "BrownianTreeNoiseSampler", lambda x, low, high: tree(x, low, high, seed=21))
    x, schedule, theirs = latents(3), stage_2(), published_stage_2()
    levels = theirs._t_to_sigma(torch.tensor([599 - i * 600 / 31 for i in range(30)]))
    denoise = denoiser(Network(), schedule, ClassifierFree(scale=7.5, rescale=0.2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the published tree is asked for times rounded away from its ends
        expected = solvers.sample_dpmpp_2m_sde(
            x,
            lambda state, sigma: denoise(state, float(sigma)),
            torch.cat([levels, torch.zeros(1)]),
            show_progress=False,
        )
    sigmas = [*(float(level) for level in levels), 0.0]
    ours = run(
        DPMpp2MSDE(), denoise, x * start_scale(schedule, 599, "published"), sigmas, noises.Brownian(21, sigmas, x)
    )
    error = relative_error(ours[-1].x, expected)
    record_testsuite_property("dpmpp_2m_sde, published tree", error)
    assert error <= 1e-5


@pytest.mark.parametrize(("mode", "rounding"), [("exact", "published"), ("published", "exact")])
def test_the_mended_start_and_rounding_change_the_result(mode: str, rounding: str) -> None:
    result, expected, *_ = stage_2_pair(Heun(), 31, "heun", mode, rounding)
    assert 1e-4 < relative_error(result, expected) < 0.2


def test_the_first_step_at_infinite_sigma_equals_the_published() -> None:
    result, expected, ours, theirs = stage_2_pair(Heun(), 2, "heun", "published", "published", timestep=999)
    assert ours == theirs == [999.0, 499.0]
    assert relative_error(result, expected) <= 1e-5
