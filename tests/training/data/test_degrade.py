"""Spoilt clips: what each way of spoiling takes away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from i2vgen_ms.training.data.degrade import blurred, compressed, degrade
from i2vgen_ms.training.randomness import Draws
from i2vgen_ms.training.sections import Degrading
from i2vgen_ms.world.render import render
from i2vgen_ms.world.scene import draw

NOTHING = {
    "factors": [1.0],
    "blur": [0.0, 0.0],
    "noise": [0.0, 0.0],
    "quality": [50.0, 50.0],
    "compressed": 0.0,
    "autoencoded": 0.0,
    "full": 1.0,
    "between": 0.0,
}


def spoilt(pixels: torch.Tensor, seed: int = 0, **changes) -> torch.Tensor:
    wanted = Degrading.model_validate(NOTHING | changes)
    return degrade(pixels, wanted, Draws.at(torch.device("cpu"), seed, "test"), autoencode=lambda small: small * 0)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return render([draw(0, index) for index in range(2)], frames=2, width=64, height=32)


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().mean())


def test_without_any_spoiling_only_the_levels_of_a_file_are_left(pixels: torch.Tensor) -> None:
    assert float((spoilt(pixels) - pixels).abs().max()) <= 0.5 / 127.5 + 1e-6


def test_making_smaller_is_what_the_pipelines_fit_makes_larger_again(pixels: torch.Tensor) -> None:
    made = spoilt(pixels, factors=[2.0])
    flat = pixels.flatten(0, 1).permute(0, 3, 1, 2)
    small = F.interpolate(flat, size=(16, 32), mode="bilinear", align_corners=False, antialias=True)
    large = F.interpolate(small, size=(32, 64), mode="bilinear", align_corners=False)
    assert float((made - large.permute(0, 2, 3, 1).reshape_as(made)).abs().max()) <= 0.5 / 127.5 + 1e-6
    assert error(made, pixels) < error(spoilt(pixels, factors=[4.0]), pixels)


def test_each_way_spoils(pixels: torch.Tensor) -> None:
    plain = error(spoilt(pixels), pixels)
    for change in (
        {"blur": [1.0, 1.0]},
        {"noise": [0.05, 0.05]},
        {"compressed": 1.0, "quality": [30.0, 30.0]},
        {"autoencoded": 1.0},
    ):
        assert error(spoilt(pixels, **change), pixels) > 2 * plain, change
    assert spoilt(pixels, autoencoded=1.0).abs().max() < 0.01  # the stand-in makes everything grey


def test_what_is_chosen_follows_from_the_draws(pixels: torch.Tensor) -> None:
    wide = {"factors": [1.0, 2.0, 4.0], "blur": [0.0, 2.0], "noise": [0.0, 0.1], "compressed": 0.5}
    assert torch.equal(spoilt(pixels, 3, **wide), spoilt(pixels, 3, **wide))
    assert len({error(spoilt(pixels, seed, **wide), pixels) for seed in range(6)}) == 6


def test_the_blur_keeps_the_sum_and_has_the_width_that_is_asked_for() -> None:
    picture = torch.zeros(1, 1, 41, 41)
    picture[0, 0, 20, 20] = 1.0
    for deviation in (0.8, 1.5, 3.0):
        made = blurred(picture, deviation)
        assert float(made.sum()) == pytest.approx(1.0, abs=1e-5)
        places = torch.arange(41.0) - 20
        assert float((made[0, 0].sum(0) * places**2).sum()) == pytest.approx(deviation**2, rel=0.06)
    assert blurred(picture, 0.0) is picture


def test_compression_is_as_coarse_as_that_of_a_jpeg_of_that_quality(pixels: torch.Tensor) -> None:
    flat = pixels.flatten(0, 1).permute(0, 3, 1, 2)
    for quality in (20, 60, 90):
        ours = (compressed(flat, float(quality)) - flat).square().mean()
        theirs = torch.stack([(_jpeg(picture, quality) - picture).square().mean() for picture in flat]).mean()
        assert 0.3 < float((ours / theirs).sqrt()) < 1.6, quality
    odd = torch.rand(1, 3, 13, 19) * 2 - 1
    assert compressed(odd, 50.0).shape == odd.shape


def _jpeg(picture: torch.Tensor, quality: int) -> torch.Tensor:
    import io

    levels = ((picture.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality, subsampling=0)
    decoded = np.array(Image.open(file)).astype(np.float32)
    return torch.from_numpy(decoded / 127.5 - 1).permute(2, 0, 1)
