from __future__ import annotations

import gc
import math
import warnings
from itertools import pairwise

import pytest
import torch
import torchsde

from i2vgen_ms import errors
from i2vgen_ms.diffusion import noise as noises
from tests.diffusion.cases import SHAPE, latents
from tests.oracle import published


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_initial_noise_draws_the_latents_then_the_offset() -> None:
    drawn = noises.initial(SHAPE, generator(), 0.1)
    reference = generator()
    plain = torch.randn(SHAPE, generator=reference)
    offset = torch.randn(2, 4, 3, 1, 1, generator=reference)
    torch.testing.assert_close(drawn, plain + 0.1 * offset, rtol=0, atol=0)
    assert drawn.dtype == torch.float32
    source = generator()
    torch.testing.assert_close(noises.initial(SHAPE, source), plain, rtol=0, atol=0)
    after = generator()
    torch.randn(SHAPE, generator=after)
    assert torch.equal(source.get_state(), after.get_state())


def test_independent_noise_is_fresh_each_step_and_per_item_on_request() -> None:
    like = latents(dtype=torch.float64)
    both = noises.Independent([generator(1), generator(2)], like)
    first, second = both(2.0, 1.0), both(1.0, 0.5)
    assert first.shape == like.shape
    assert first.dtype == torch.float64
    assert not torch.equal(first, second)
    alone = noises.Independent(generator(2), like[:1])
    torch.testing.assert_close(alone(2.0, 1.0), first[1:], rtol=0, atol=0)
    torch.testing.assert_close(alone(1.0, 0.5), second[1:], rtol=0, atol=0)
    with pytest.raises(errors.ArgumentError, match="3 generators for a batch of 2"):
        noises.Independent([generator()] * 3, like)


def test_brownian_noise_equals_the_published_on_the_same_path() -> None:
    theirs = published("video_to_video.utils.solvers_sdedit").BrownianTreeNoiseSampler
    like = latents()
    sigmas = torch.tensor([math.inf, 4.16477, 1.9, 0.7112345, 0.0123457, 0.0])
    levels = [float(sigma) for sigma in sigmas]
    ours = noises.Brownian(11, levels, like)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = [ours(a, b) for a, b in pairwise(levels[1:-1])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = theirs(like, sigmas[-2], sigmas[1], seed=11)
        expected = [path(a, b) for a, b in pairwise(sigmas[1:-1])]
    torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-6)


def test_brownian_noise_has_the_bits_of_the_published_tree() -> None:
    levels, like = [round(4 * 0.87**step, 6) for step in range(31)], latents()
    tree = torchsde.BrownianTree(t0=levels[-1], w0=torch.zeros_like(like), t1=levels[0], entropy=7)
    ours = noises.Brownian(7, levels, like)
    for sigma, after in pairwise(levels):
        assert torch.equal(ours(sigma, after), -tree(after, sigma) / math.sqrt(sigma - after))


def test_a_closed_path_leaves_nothing_and_begins_anew() -> None:
    levels, like = [4.0, 3.0, 2.0, 1.0, 0.5], latents()
    gc.collect()
    gc.disable()
    try:
        before = tensors_like(like)
        path = noises.Brownian(7, levels, like)
        first = [float(path(*step).sum()) for step in pairwise(levels)]
        assert tensors_like(like) > before
        path.close()
        assert tensors_like(like) == before
    finally:
        gc.enable()
    assert [float(path(*step).sum()) for step in pairwise(levels)] == first


def tensors_like(like: torch.Tensor) -> int:
    return sum(type(one) is torch.Tensor and one.shape == like.shape for one in gc.get_objects())


def test_brownian_noise_refines_one_path() -> None:
    levels, like = [3.0, 2.0, 1.5, 0.5], torch.zeros(4, 20000)
    fine, coarse = noises.Brownian(7, levels, like), noises.Brownian(7, [3.0, 0.5], like)
    total = sum(fine(a, b) * math.sqrt(a - b) for a, b in pairwise(levels))
    torch.testing.assert_close(total, coarse(3.0, 0.5) * math.sqrt(2.5), rtol=0, atol=1e-5)
    draws = torch.stack([fine(a, b) for a, b in pairwise(levels)]).flatten(1)
    torch.testing.assert_close(draws @ draws.T / 80000, torch.eye(3), rtol=0, atol=0.02)
    assert not torch.equal(noises.Brownian(8, levels, like)(3.0, 2.0), draws[0].reshape(4, -1))


def test_brownian_noise_per_item() -> None:
    levels, like = [3.0, 1.0], latents()
    both = noises.Brownian([4, 5], levels, like)(3.0, 1.0)
    torch.testing.assert_close(both[1:], noises.Brownian(5, levels, like[:1])(3.0, 1.0), rtol=0, atol=0)
    with pytest.raises(errors.ArgumentError, match="3 Brownian seeds for a batch of 2"):
        noises.Brownian([1, 2, 3], levels, like)


@pytest.mark.parametrize("step", [(4.0, 1.0), (1.0, 3.0), (3.0, 0.0), (math.inf, 1.0)])
def test_brownian_noise_refuses_steps_outside_its_path(step: tuple[float, float]) -> None:
    with pytest.raises(errors.ArgumentError, match=r"covers 0\.5 to 3"):
        noises.Brownian(1, [math.inf, 3.0, 0.5, 0.0], latents())(*step)


def test_make() -> None:
    like, sigmas = latents(), [2.0, 1.0, 0.5]
    with pytest.raises(errors.ArgumentError, match="declares noise='none'"):
        noises.make("none", generator=generator(), sigmas=sigmas, like=like)(2.0, 1.0)
    fresh = noises.make("independent", generator=generator(), sigmas=sigmas, like=like)
    torch.testing.assert_close(fresh(2.0, 1.0), torch.randn(SHAPE, generator=generator()), rtol=0, atol=0)
    drawn = noises.make("brownian", generator=[generator(1), generator(2)], sigmas=sigmas, like=like)(2.0, 1.0)
    again = noises.make("brownian", generator=[generator(1), generator(2)], sigmas=sigmas, like=like)(2.0, 1.0)
    alone = noises.make("brownian", generator=generator(2), sigmas=sigmas, like=like[:1])(2.0, 1.0)
    assert torch.equal(drawn, again)
    assert torch.equal(drawn[1:], alone)
    given = noises.make("brownian", generator=generator(), sigmas=sigmas, like=like, seed=9)(2.0, 1.0)
    assert torch.equal(given, noises.Brownian(9, sigmas, like)(2.0, 1.0))
    with pytest.raises(errors.ArgumentError, match="did you mean 'brownian'"):
        noises.make("brown", generator=generator(), sigmas=sigmas, like=like)
