from __future__ import annotations

import pytest
import torch

from i2vgen_ms import errors
from i2vgen_ms.diffusion.prediction import check, to_x0
from i2vgen_ms.diffusion.schedule import scales
from tests.diffusion.cases import latents, published_stage_1, published_stage_2, stage_1, stage_2


@pytest.mark.parametrize("sigma", [0.03, 1.0, 4.2, float("inf")])
def test_every_kind_gives_back_the_clean_latent(sigma: float) -> None:
    x0, eps = latents(1, torch.float64), latents(2, torch.float64)
    a, s = scales(sigma)
    x = a * x0 + s * eps
    torch.testing.assert_close(to_x0("v", a * eps - s * x0, x, a, s), x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(to_x0("x0", x0, x, a, s), x0, rtol=0, atol=0)
    if a > 0:
        torch.testing.assert_close(to_x0("eps", eps, x, a, s), x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_kinds_equal_the_published(kind: str) -> None:
    x, out, t = latents(1), latents(2), torch.tensor([300, 300])
    first = published_stage_1(kind).p_mean_variance(x, t, lambda *_: out)[-1]
    schedule = stage_1()
    ours = to_x0(kind, out, x, schedule.alpha(300.0), schedule.sigma_vp(300.0))
    torch.testing.assert_close(ours, first, rtol=0, atol=5e-6)
    second = published_stage_2(kind).denoise(x, t, None, lambda *_, **__: out)[-2]
    schedule = stage_2()
    ours = to_x0(kind, out, x, schedule.alpha(300.0), schedule.sigma_vp(300.0))
    torch.testing.assert_close(ours, second, rtol=0, atol=5e-6)


def test_impossible_kinds_are_refused() -> None:
    x = latents()
    with pytest.raises(errors.ConfigurationError, match="zero terminal SNR"):
        to_x0("eps", x, x, 0.0, 1.0)
    with pytest.raises(errors.ConfigurationError, match="did you mean 'eps'"):
        to_x0("epsilon", x, x, 0.5, 0.5)
    with pytest.raises(errors.ConfigurationError, match="Known: eps, v, x0"):
        check("velocity")
