"""The questions that a denoising network is asked, against the samplers that will ask them."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.diffusion.denoiser import Denoiser
from i2vgen_ms.diffusion.prediction import to_x0
from i2vgen_ms.diffusion.samplers.dpmpp_2m import DPMpp2M
from i2vgen_ms.diffusion.schedule import NoiseSchedule, cosine
from i2vgen_ms.training.objective import Objective
from i2vgen_ms.training.randomness import Draws, derive

SHAPE = (6, 4, 3, 2, 5)
CPU = torch.device("cpu")


def objective(schedule: NoiseSchedule | None = None, **changes) -> Objective:
    given = {
        "prediction": "v",
        "first_timestep": None,
        "offset_noise": 0.0,
        "stratified": False,
        "shift": 1.0,
        "device": CPU,
    }
    return Objective(schedule or cosine(timesteps=1000, zero_terminal_snr=True), **given | changes)


def draws(seed: int = 0) -> Draws:
    return Draws.at(CPU, seed, "test")


def clean(seed: int = 1) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_the_right_answer_leads_back_to_the_clean_latents(kind: str) -> None:
    schedule, x0 = cosine(timesteps=1000), clean()
    question = objective(schedule, prediction=kind, offset_noise=0.1).draw(x0, draws())
    for item in range(len(x0)):
        t = float(question.t[item])
        found = to_x0(kind, question.answer[item], question.x[item], schedule.alpha(t), schedule.sigma_vp(t))
        torch.testing.assert_close(found, x0[item], rtol=1e-3, atol=1e-3)
    assert float(question.loss(question.answer)) == 0
    assert float(question.loss(question.answer + 0.5)) == pytest.approx(0.25)


def test_the_states_are_those_of_the_schedule() -> None:
    schedule, x0, noise = cosine(timesteps=1000), clean(), clean(2)
    t = torch.tensor([0, 1, 10, 500, 998, 999])
    question = objective(schedule).at(x0, t, noise)
    torch.testing.assert_close(question.x, schedule.add_noise(x0, t.double(), noise), rtol=1e-5, atol=1e-5)


def test_offset_noise_is_one_number_a_frame_and_channel() -> None:
    x0 = torch.zeros(SHAPE)
    plain, shifted = (objective(prediction="eps", offset_noise=weight).draw(x0, draws()).answer for weight in (0, 0.5))
    difference = shifted - plain
    assert difference.std(dim=(3, 4)).max() < 1e-6
    assert 0.3 < difference[..., 0, 0].std() < 0.7


@pytest.mark.parametrize("stratified", [False, True])
def test_timesteps_cover_the_range_up_to_the_start(stratified: bool) -> None:
    x0 = torch.zeros(4000, 1, 1, 1, 1)
    t = objective(first_timestep=499, stratified=stratified).draw(x0, draws()).t
    assert (float(t.min()), float(t.max())) == (0, 499)
    assert torch.equal(t, t.round())
    counts = torch.histc(t, bins=10, min=-0.5, max=499.5)
    assert counts.min() >= (399 if stratified else 320)
    assert (counts.max() <= 401) == stratified


def test_a_shift_draws_noisy_timesteps_more_often() -> None:
    x0 = torch.zeros(4000, 1, 1, 1, 1)
    t = objective(first_timestep=499, stratified=True, shift=3.0).draw(x0, draws()).t
    assert (float(t.min()), float(t.max())) == (0, 499)
    # the place u = 1/2 goes to 3/4
    assert abs(float((t >= 375).float().mean()) - 0.5) < 0.01


def test_questions_from_a_spoilt_clip_are_the_states_that_a_sampler_meets() -> None:
    """A network that answers rightly, and a sampler without noise of its own that starts from the spoilt latents."""
    schedule, x0, spoilt, noise = cosine(timesteps=1000), clean(1), clean(2), clean(3)
    start = 600
    states = {}

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, s = schedule.alpha(float(t[0])), schedule.sigma_vp(float(t[0]))
        states[int(t[0])] = x
        return (a * x - x0) / s  # the v that says x0

    denoise = Denoiser(predict=predict, schedule=schedule, prediction="v", rounding="exact")
    sigmas = [schedule.sigma(float(t)) for t in (start, 400, 200, 50)] + [0.0]
    *_, last = DPMpp2M()(denoise, schedule.add_noise(spoilt, float(start), noise), sigmas, lambda *_: None)
    torch.testing.assert_close(last.x, x0, rtol=1e-3, atol=1e-3)

    trained = objective(schedule, first_timestep=start)
    shift = (spoilt - x0) / schedule.sigma(float(start))
    for timestep, state in states.items():
        t = torch.full((len(x0),), timestep)
        question = trained.at(x0, t, noise + shift)
        torch.testing.assert_close(question.x, state, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(question.answer, predict(state, t.float()), rtol=1e-2, atol=1e-2)


def test_the_difference_to_the_spoilt_clip_is_added_to_the_noise_in_its_part() -> None:
    schedule, x0, spoilt = cosine(timesteps=1000), clean(1), clean(2)
    ask = objective(schedule, prediction="eps", first_timestep=600)
    part = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 1.0])
    plain, shifted = ask.draw(x0, draws()), ask.draw(x0, draws(), spoilt=spoilt, part=part)
    expected = part.reshape(-1, 1, 1, 1, 1) * (spoilt - x0) / schedule.sigma(600.0)
    torch.testing.assert_close(shifted.answer - plain.answer, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(plain.t, shifted.t)


def test_what_is_drawn_follows_from_seed_and_place() -> None:
    assert torch.equal(draws(3).normal(4), draws(3).normal(4))
    assert not torch.equal(draws(3).normal(4), draws(4).normal(4))
    assert draws(3).host.random() == draws(3).host.random()
    assert len({derive(1, "a"), derive(1, "b"), derive(2, "a"), derive(1, "a", 0), derive(11, "a")}) == 5
    assert all(0 <= derive(seed, "x") < 2**63 for seed in range(50))
