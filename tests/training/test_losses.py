"""The losses of the autoencoder and of the encoders, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from i2vgen_ms.training.autoencoder import divergence, edge_distance
from i2vgen_ms.training.contrastive import contrast
from i2vgen_ms.training.task import psnr


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


def test_equal_captions_are_equally_right() -> None:
    seen, read = torch.eye(3), torch.eye(3)
    scale, alone = torch.tensor(4.0), torch.eye(3, dtype=torch.bool)
    expected = math.log(math.e**4 + 2) - 4
    assert float(contrast(seen, read, scale, alone)) == pytest.approx(expected, rel=1e-5)
    # the first two texts are the same: both are the right answer to both pictures
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    pictures = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    both = contrast(pictures, pictures, scale, same)
    wrong = contrast(pictures, pictures, scale, alone)
    assert float(both) == pytest.approx(
        (2 * (math.log(2 * math.e**4 + 1) - 4) + math.log(math.e**4 + 2) - 4) / 3, rel=1e-5
    )
    assert float(wrong) >= float(both) - 1e-6


def test_the_signal_to_noise_ratio() -> None:
    truth = torch.zeros(2, 3, 4, 5, 3)
    assert psnr(truth + 0.2, truth) == pytest.approx(20.0, abs=1e-3)
    assert psnr(truth + 9.0, truth) == pytest.approx(10 * math.log10(4), abs=1e-3)
