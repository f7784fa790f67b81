from __future__ import annotations

import math

import pytest
import torch

from i2vgen_ms import errors
from i2vgen_ms.diffusion import schedule as schedules
from i2vgen_ms.diffusion.schedule import NoiseSchedule
from tests.diffusion.cases import latents, published_stage_1, published_stage_2, stage_1, stage_2
from tests.oracle import published


def published_squares(name: str, first: float | None, last: float | None, timesteps: int) -> torch.Tensor:
    betas = published("image_to_video.utils.shedule").beta_schedule(name, timesteps, first, last)
    return published("image_to_video.utils.diffusion").GaussianDiffusion(betas, var_type="fixed_small").alphas_cumprod


@pytest.mark.parametrize("timesteps", [1000, 250])
@pytest.mark.parametrize(
    ("name", "first", "last"),
    [("linear", 0.0001, 0.02), ("linear_sd", 0.00085, 0.012), ("quadratic", 0.0015, 0.0195), ("cosine", None, None)],
)
def test_beta_schedules_equal_the_published(name: str, first: float | None, last: float | None, timesteps: int) -> None:
    theirs = published_squares(name, first, last, timesteps)
    betas = {} if first is None else {"first_beta": first, "last_beta": last}
    ours = getattr(schedules, name)(timesteps=timesteps, **betas)
    assert ours.timesteps == timesteps
    torch.testing.assert_close(ours.alphas_cumprod, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_logsnr_schedule_equals_the_published_up_to_its_float32(zero_terminal_snr: bool) -> None:
    theirs = published("video_to_video.utils.schedules_sdedit").noise_schedule(
        schedule="logsnr_cosine_interp", n=1000, zero_terminal_snr=zero_terminal_snr, scale_min=2.0, scale_max=4.0
    )
    ours = stage_2(zero_terminal_snr=zero_terminal_snr).sigma_vp(torch.arange(1000.0))
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-4, atol=4e-7)
    assert (float(ours[-1]) == 1.0) == zero_terminal_snr


def test_levels_between_timesteps_equal_the_published() -> None:
    theirs, ours = published_stage_2(), stage_2()
    for t in (0.25, 18.354, 299.5, 579.645, 599.0, 899.9):
        sigma = float(theirs._t_to_sigma(torch.tensor([t])))
        # both ends carry the float32 rounding of the published numbers
        assert ours.sigma(t) == pytest.approx(sigma, rel=3e-6 if 1 < t < 600 else 1e-4)
        assert ours.timestep(sigma) == pytest.approx(float(theirs._sigma_to_t(torch.tensor(sigma))), abs=2e-2)
    assert ours.sigma(999) == math.inf == float(theirs._t_to_sigma(torch.tensor([999.0])))
    assert ours.timestep(math.inf) == 999 == float(theirs._sigma_to_t(torch.tensor(math.inf)))


@pytest.mark.parametrize("make", [stage_1, stage_2])
def test_levels_are_consistent_and_invertible(make) -> None:
    ours = make()
    times = torch.arange(0, 1000 - 1 + 1e-9, 0.25, dtype=torch.float64)
    a, s, sigma = ours.alpha(times), ours.sigma_vp(times), ours.sigma(times)
    torch.testing.assert_close(a**2 + s**2, torch.ones_like(a), rtol=0, atol=1e-12)
    torch.testing.assert_close(s / a, sigma, rtol=1e-9, atol=0)
    assert bool((sigma[1:] > sigma[:-1]).all())
    back = torch.tensor([ours.timestep(float(level)) for level in sigma], dtype=torch.float64)
    torch.testing.assert_close(back, times, rtol=0, atol=1e-8)
    for level in (ours.alpha, ours.sigma_vp, ours.sigma):
        assert [level(t) for t in (0.0, 7.0, 998.0, 999.0)] == level(torch.tensor([0.0, 7.0, 998.0, 999.0])).tolist()
    assert ours.timestep(0.0) == 0.0
    assert ours.timestep(1e9) <= 999.0
    assert schedules.scales(math.inf) == (0.0, 1.0)
    assert schedules.scales(0.0) == (1.0, 0.0)


def test_zero_terminal_snr_of_betas_moves_and_stretches_the_signal() -> None:
    options = {"timesteps": 1000, "first_beta": 0.00085, "last_beta": 0.012}
    before = schedules.linear_sd(**options).alphas_cumprod.sqrt()
    after = schedules.linear_sd(**options, zero_terminal_snr=True).alphas_cumprod.sqrt()
    assert float(after[-1]) == 0.0
    assert float(after[0]) == pytest.approx(float(before[0]), rel=1e-12)
    stretch = (after[:-1] - after[1:]) / (before[:-1] - before[1:])
    torch.testing.assert_close(stretch, stretch[:1].expand_as(stretch), rtol=1e-9, atol=0)


def test_add_noise_equals_the_published() -> None:
    x0, noise = latents(1), latents(2)
    t = torch.tensor([3, 800])
    first, second = published_stage_1(), published_stage_2()
    torch.testing.assert_close(stage_1().add_noise(x0, t, noise), first.q_sample(x0, t, noise), rtol=0, atol=1e-6)
    theirs = second.diffuse(x0, torch.tensor([599, 599]), noise)
    torch.testing.assert_close(stage_2().add_noise(x0, 599.0, noise), theirs, rtol=0, atol=3e-6)
    assert stage_2().add_noise(x0, 599.0, noise).dtype == torch.float32


def test_start_scale() -> None:
    ours = stage_2()
    assert schedules.start_scale(ours, 599, "exact") == 1.0
    assert schedules.start_scale(ours, 599, "published") == pytest.approx(0.97236, abs=5e-6)
    assert schedules.start_scale(ours, 999, "published") == 1.0
    with pytest.raises(errors.ArgumentError, match="did you mean 'exact'"):
        schedules.start_scale(ours, 599, "exakt")


@pytest.mark.parametrize("t", [-0.5, 999.5, math.nan])
def test_timesteps_outside_the_schedule_are_refused(t: float) -> None:
    with pytest.raises(errors.ArgumentError, match=r"0\.\.999"):
        stage_1().sigma(t)


@pytest.mark.parametrize(
    "squares",
    [[0.9], [[0.9, 0.5]], [0.5, 0.9], [0.9, 0.9], [1.0, 0.5], [0.9, -0.1], [0.9, 0.0, -0.1], [0.9, math.nan]],
)
def test_schedules_that_do_not_lose_signal_are_refused(squares: list) -> None:
    with pytest.raises(errors.ConfigurationError, match="schedule"):
        NoiseSchedule(torch.tensor(squares, dtype=torch.float64))


def test_impossible_options_are_refused() -> None:
    with pytest.raises(errors.ConfigurationError, match="first_beta"):
        schedules.linear(timesteps=10, first_beta=0.0, last_beta=0.02)
    with pytest.raises(errors.ConfigurationError, match="timesteps"):
        schedules.cosine(timesteps=1)
    with pytest.raises(errors.ConfigurationError, match="logsnr_min"):
        schedules.logsnr_cosine_interp(timesteps=10, logsnr_min=1.0, logsnr_max=0.0, scale_min=2.0, scale_max=4.0)
