"""Float pixels become uint8 by rounding, without touching the input, and never silently black."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from i2vgen_ms.errors import ArgumentError, NonFiniteError
from i2vgen_ms.media.frames import to_uint8


@pytest.mark.parametrize("make", [torch.tensor, np.asarray])
def test_rounds_to_the_nearest_level(make):
    levels = np.arange(256)
    for offset in (-0.49, 0.0, 0.49):
        pixels = ((levels + offset) / 127.5 - 1).astype(np.float32)
        assert (to_uint8(make(pixels)) == levels).all()


def test_differs_from_the_published_truncation_where_that_is_wrong():
    pixels = torch.linspace(-1, 1, 1001)
    published = ((pixels * 0.5 + 0.5).clamp(0, 1) * 255).numpy().astype("uint8")
    exact = (pixels.double().numpy() * 0.5 + 0.5) * 255
    assert np.abs(to_uint8(pixels) - exact).max() <= 0.5001
    assert np.abs(published - exact).max() > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_input_is_untouched_and_the_result_is_a_copy(dtype):
    pixels = torch.linspace(-2, 2, 24, dtype=dtype).reshape(1, 2, 2, 2, 3)
    before = pixels.clone()
    result = to_uint8(pixels)
    assert result.shape == (1, 2, 2, 2, 3)
    assert result.dtype == np.uint8
    assert result.flags.writeable
    result[:] = 7
    assert torch.equal(pixels, before)
    array = np.linspace(-2, 2, 6)
    to_uint8(array)
    assert np.array_equal(array, np.linspace(-2, 2, 6))


def test_outside_values_are_clipped():
    assert to_uint8(torch.tensor([-5.0, 5.0])).tolist() == [0, 255]


def test_gradients_do_not_matter():
    assert to_uint8(torch.ones(2, requires_grad=True)).tolist() == [255, 255]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("make", [torch.tensor, np.asarray])
def test_non_finite_pixels_raise(make, bad):
    with pytest.raises(NonFiniteError, match="decoded frames"):
        to_uint8(make([0.0, bad]))


@pytest.mark.parametrize("whole", [torch.zeros(3, dtype=torch.uint8), np.zeros(3, np.uint8)])
def test_whole_numbers_are_refused(whole):
    with pytest.raises(ArgumentError, match="uint8"):
        to_uint8(whole)
