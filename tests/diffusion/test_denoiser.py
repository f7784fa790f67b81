from __future__ import annotations

import math

import pytest
import torch

from i2vgen_ms import errors
from i2vgen_ms.diffusion.denoiser import Denoiser
from i2vgen_ms.diffusion.schedule import scales
from tests.diffusion.cases import latents, published_stage_2, stage_1, stage_2


class Probe:
    def __init__(self, out: torch.Tensor) -> None:
        self.out = out
        self.seen: list[torch.Tensor] = []

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.seen.append(t)
        return self.out


def test_published_rounding_uses_the_whole_timestep_throughout() -> None:
    schedule, x, out = stage_2(), latents(1), latents(2)
    sigma = schedule.sigma(579.645)
    probe = Probe(out)
    x0 = Denoiser(predict=probe, schedule=schedule, prediction="v")(x, sigma)
    assert probe.seen[0].tolist() == [580.0, 580.0]
    assert probe.seen[0].dtype == torch.float32
    theirs = published_stage_2()
    t = theirs._sigma_to_t(torch.tensor(sigma)).repeat(2).round().long()
    expected = theirs.denoise(x, t, None, lambda x, t: out)[-2]
    torch.testing.assert_close(x0, expected, rtol=0, atol=3e-6)


def test_exact_rounding_uses_sigma_itself() -> None:
    schedule, x, out = stage_2(), latents(1), latents(2)
    sigma = schedule.sigma(579.645)
    probe = Probe(out)
    x0 = Denoiser(predict=probe, schedule=schedule, prediction="v", rounding="exact")(x, sigma)
    assert probe.seen[0].tolist() == pytest.approx([579.645] * 2, abs=1e-4)
    a, s = scales(sigma)
    torch.testing.assert_close(x0, a * x - s * out, rtol=0, atol=1e-6)
    published = Denoiser(predict=probe, schedule=schedule, prediction="v")(x, sigma)
    assert 1e-4 < float((published - x0).norm() / x0.norm()) < 1e-2


def test_roundings_agree_on_a_whole_timestep() -> None:
    x, out = latents(1), latents(2)
    for schedule, t in ((stage_1(), 981.0), (stage_2(), 599.0), (stage_2(), 999.0)):
        sigma = schedule.sigma(t)
        one = Denoiser(predict=Probe(out), schedule=schedule, prediction="v")(x, sigma)
        two = Denoiser(predict=Probe(out), schedule=schedule, prediction="v", rounding="exact")(x, sigma)
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_at_infinite_sigma_the_state_is_noise_and_v_is_minus_the_picture() -> None:
    x, out = latents(1), latents(2)
    probe = Probe(out)
    x0 = Denoiser(predict=probe, schedule=stage_2(), prediction="v")(x, math.inf)
    assert probe.seen[0].tolist() == [999.0, 999.0]
    torch.testing.assert_close(x0, -out, rtol=0, atol=0)


def test_ties_go_to_the_even_timestep() -> None:
    schedule, x = stage_2(), latents(1)
    probe = Probe(x)
    denoise = Denoiser(predict=probe, schedule=schedule, prediction="v")
    for low in range(20, 600):
        denoise(x, schedule.sigma(low + 0.5))
    assert [int(t[0]) for t in probe.seen] == [low + low % 2 for low in range(20, 600)]


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
def test_half_precision_outputs_leave_the_state_fp32(prediction: str) -> None:
    out = latents(2).half()
    x0 = Denoiser(predict=Probe(out), schedule=stage_2(), prediction=prediction)(latents(1), 1.0)
    assert x0.dtype == torch.float32


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_raise_where_they_appear(bad: float) -> None:
    out = latents(2)
    out[1, 2, 0, 1, 3] = bad
    denoise = Denoiser(predict=Probe(out), schedule=stage_2(), prediction="v", stage="image-to-video")
    with pytest.raises(errors.NonFiniteError, match=r"image-to-video: NaN or infinity at sigma 1 \(timestep \d+\)"):
        denoise(latents(1), 1.0)


def test_the_words_of_the_error_are_those_of_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device the error comes one call later."""
    asked: list[str] = []
    monkeypatch.setattr("i2vgen_ms.diffusion.verdicts.Verdicts.ask", lambda self, x, words: asked.append(words))
    denoise = Denoiser(
        predict=Probe(latents(2)), schedule=stage_2(), prediction="v", stage=lambda: f"step {len(asked) + 1}"
    )
    for _ in range(2):
        denoise(latents(1), 1.0)
    denoise.settle()
    assert [words.partition(":")[0] for words in asked] == ["step 1", "step 2"]


def test_impossible_options_are_refused() -> None:
    with pytest.raises(errors.ConfigurationError, match="did you mean 'exact'"):
        Denoiser(predict=Probe(latents()), schedule=stage_1(), prediction="v", rounding="exac")
    with pytest.raises(errors.ConfigurationError, match="prediction 'w'"):
        Denoiser(predict=Probe(latents()), schedule=stage_1(), prediction="w")
