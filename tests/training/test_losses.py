"""The losses of the autoencoder and of the encoders, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from i2vgen_ms.training import networks
from i2vgen_ms.training.autoencoder import divergence, edge_distance
from i2vgen_ms.training.contrastive import Towers, contrast
from i2vgen_ms.training.task import psnr
from tests.training import small


def test_the_divergence_from_a_unit_normal_distribution() -> None:
    assert float(divergence(torch.zeros(3), torch.zeros(3))) == 0
    assert float(divergence(torch.full((4,), 2.0), torch.zeros(4))) == pytest.approx(2.0)
    variance = torch.tensor(0.25)
    assert float(divergence(torch.zeros(1), variance.log())) == pytest.approx(0.5 * (0.25 - 1 - math.log(0.25)))


def test_edges_are_differences_of_neighbours_within_a_frame() -> None:
    flat, ramp = torch.zeros(1, 2, 3, 4, 1), torch.arange(4.0).expand(1, 2, 3, 4)[..., None]
    assert float(edge_distance(flat + 0.5, flat)) == 0
    assert float(edge_distance(ramp, flat)) == pytest.approx(1.0)
    assert float(edge_distance(ramp.transpose(2, 3), flat.transpose(2, 3))) == pytest.approx(1.0)
    frames = torch.zeros(1, 2, 3, 4, 1)
    frames[:, 1] = 1.0
    assert float(edge_distance(frames, flat)) == 0


def test_partners_are_told_from_all_others_both_ways() -> None:
    scale = torch.tensor(4.0)
    expected = math.log(math.e**4 + 2) - 4
    assert float(contrast(torch.eye(3), torch.eye(3), scale)) == pytest.approx(expected, rel=1e-5)
    # two pictures that look alike, and texts that do not: the texts are found by half
    seen = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    to_text = (math.log(math.e**4 + 2) - 4 + math.log(math.e**4 + 2) + math.log(math.e**4 + 2) - 4) / 3
    to_picture = (math.log(2 * math.e**4 + 1) - 4 + math.log(3) + math.log(math.e**4 + 2) - 4) / 3
    assert float(contrast(seen, torch.eye(3), scale)) == pytest.approx((to_text + to_picture) / 2, rel=1e-5)


@torch.no_grad()
def test_a_texts_vector_is_that_of_its_end_mark() -> None:
    image, text = (
        networks.fresh(small.configuration(task), "encoder", 0) for task in ("image-to-video", "video-to-video")
    )
    towers = Towers(image, text, temperature=0.5, least_temperature=0.01)
    captions = ["a red arrow", "a striped star moving to the left over a wavy background"]
    pictures = torch.randn(2, 3, 32, 32)
    seen, read, scale = towers(pictures, text.tokenize(captions))
    ends = [text.fit(caption).tokens + 1 for caption in captions]
    vectors = torch.stack([text(captions)[row, end] for row, end in enumerate(ends)])
    torch.testing.assert_close(read, F.normalize(towers.projection(vectors), dim=-1))
    torch.testing.assert_close(seen, F.normalize(image(pictures)[:, 0], dim=-1))
    assert float(scale) == pytest.approx(2.0)
    towers.log_scale.fill_(100.0)
    assert float(towers(pictures, text.tokenize(captions))[2]) == pytest.approx(100.0)


def test_the_signal_to_noise_ratio() -> None:
    truth = torch.zeros(2, 3, 4, 5, 3)
    assert psnr(truth + 0.2, truth) == pytest.approx(20.0, abs=1e-3)
    assert psnr(truth + 9.0, truth) == pytest.approx(10 * math.log10(4), abs=1e-3)
