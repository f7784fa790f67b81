from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from i2vgen_ms import errors
from i2vgen_ms.catalogue import names, resolve
from i2vgen_ms.diffusion import spacing as spacings
from tests.diffusion.cases import SHAPE, published_stage_1, published_stage_2, stage_1, stage_2
from tests.oracle import published

SPACINGS = list(names("spacings"))
KEEPS = SimpleNamespace(discard_penultimate=False)
DISCARDS = SimpleNamespace(discard_penultimate=True)


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500, 1000])
def test_published_ddim_visits_the_published_timesteps(steps: int) -> None:
    visited: list[int] = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        visited.append(int(t[0]))
        return x

    published_stage_1().ddim_sample_loop(torch.zeros(1, 1), network, ddim_timesteps=steps)
    sigmas = spacings.published_ddim(stage_1(), steps)
    assert sigmas == [stage_1().sigma(float(t)) for t in [*visited, 0]]
    assert len(sigmas) == steps + 1


def test_published_ddim_starts_at_981_and_ends_with_noise() -> None:
    sigmas = spacings.published_ddim(stage_1(), 50)
    assert stage_1().timestep(sigmas[0]) == 981
    assert sigmas[-1] == stage_1().sigma(0.0) == pytest.approx(0.029, abs=2e-4)


@pytest.mark.parametrize("steps", [3, 7, 30, 75, 333, 999])
def test_published_ddim_gives_the_asked_steps_where_the_published_gives_more(steps: int) -> None:
    assert len(list(range(0, 1000, 1000 // steps))) != steps
    sigmas = spacings.published_ddim(stage_1(), steps)
    assert len(sigmas) == steps + 1
    assert all(a > b for a, b in pairwise(sigmas))


def test_published_ddim_refuses_more_steps_than_timesteps() -> None:
    with pytest.raises(errors.ArgumentError, match=r"steps=1001.*trailing"):
        spacings.published_ddim(stage_1(), 1001)
    assert len(spacings.grid(spacings.published_ddim, stage_1(), DISCARDS, 1000)) == 1001


@pytest.mark.parametrize("steps", [1, 2, 5, 30, 50])
@pytest.mark.parametrize("name", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m_sde"])
@pytest.mark.parametrize("first", [599, 899])
def test_grids_equal_the_published(monkeypatch, name: str, solver: str, steps: int, first: int) -> None:
    seen: list[torch.Tensor] = []

    def recorder(noise, model, sigmas, show_progress):
        seen.append(sigmas)

    monkeypatch.setattr(published("video_to_video.utils.diffusion_sdedit"), f"sample_{solver}", recorder)
    published_stage_2().sample(torch.zeros(SHAPE), None, solver=solver, steps=steps, t_max=first, discretization=name)
    sampler = DISCARDS if solver == "dpmpp_2m_sde" else KEEPS
    ours = spacings.grid(resolve("spacings", name), stage_2(), sampler, steps, first_timestep=first)
    # the published levels carry float32 rounding: of 1 - sigma_vp^2, which grows with the noise, and of timestep 0
    torch.testing.assert_close(torch.tensor(ours), seen[0], rtol=5e-6 if first == 599 else 5e-5, atol=2e-7)


@pytest.mark.parametrize("steps", [14, 28, 55])
def test_trailing_gives_the_asked_steps_where_the_published_gives_more(steps: int) -> None:
    assert len(torch.arange(599, -1, -(600 / steps))) == steps + 1
    assert len(spacings.trailing(stage_2(), steps, first_timestep=599)) == steps + 1


def test_karras_strides_are_equal_in_the_root_of_sigma() -> None:
    schedule = stage_1()
    sigmas = spacings.karras(schedule, 10)
    roots = torch.tensor(sigmas[:-1], dtype=torch.float64) ** (1 / 7)
    torch.testing.assert_close(roots[:-1] - roots[1:], (roots[0] - roots[-1]).expand(9) / 9, rtol=1e-9, atol=0)
    assert sigmas[0] == pytest.approx(schedule.sigma(999.0))
    assert sigmas[-2] == pytest.approx(schedule.sigma(0.0))
    assert spacings.karras(schedule, 10, rho=1.0)[1] == pytest.approx(sigmas[0] - (sigmas[0] - sigmas[-2]) / 9)


def test_karras_puts_an_infinite_level_before_the_strides() -> None:
    schedule = stage_2()
    sigmas = spacings.karras(schedule, 10)
    assert sigmas[:2] == [math.inf, pytest.approx(schedule.sigma(899.0))]
    assert len(sigmas) == 11
    assert spacings.karras(schedule, 1) == [math.inf, 0.0]
    assert spacings.karras(schedule, 2) == [math.inf, pytest.approx(schedule.sigma(499.0)), 0.0]


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize("make", [stage_1, stage_2])
def test_every_spacing_falls_in_exactly_the_asked_steps(make, name: str, discard: bool) -> None:
    schedule, spacing = make(), resolve("spacings", name)
    sampler = SimpleNamespace(discard_penultimate=discard)
    for steps in (1, 2, 3, 7, 30, 75, 999, 1000, 1001, 1500):
        if name == "published_ddim" and steps > 1000:
            continue
        sigmas = spacings.grid(spacing, schedule, sampler, steps)
        assert len(sigmas) == steps + 1
        assert all(a > b for a, b in list(pairwise(sigmas))[1 if steps == 1000 else 0 :]), (name, steps)
        assert sigmas[0] >= sigmas[1] >= sigmas[-1] >= 0
    for steps in (1, 2, 3):
        sigmas = spacings.grid(spacing, schedule, sampler, steps, first_timestep=3, last_timestep=1)
        assert len(sigmas) == steps + 1
        assert schedule.sigma(3.0) >= sigmas[0]
        assert sigmas[0] == pytest.approx(schedule.sigma(3.0)) or name in ("leading", "published_ddim")


def test_impossible_ranges_are_refused() -> None:
    for name in SPACINGS:
        spacing = resolve("spacings", name)
        for bad in ({"steps": 0}, {"first_timestep": 1000}, {"last_timestep": -1}, {"first_timestep": 5}):
            options = {"steps": 2, "last_timestep": 5, **bad}
            with pytest.raises(errors.ArgumentError):
                spacing(stage_1(), options.pop("steps"), **options)
    with pytest.raises(errors.ArgumentError, match="rho"):
        spacings.karras(stage_1(), 5, rho=0.0)
