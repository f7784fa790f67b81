"""The convolution at twice the size, from the small activation, against its definition."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.runtime.kernels.doubled import conv_doubled, fold, interleave
from i2vgen_ms.tensors import ops
from tests.oracle import relative_error


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 4, 4), (2, 3, 5, 7, 24, 40), (1, 2, 3, 40, 96, 70)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_is_the_definition(place: torch.device, shape: tuple[int, ...], with_bias: bool) -> None:
    *size, inputs, outputs = shape
    x = torch.randn(*size, inputs, device=place)
    weight, bias = torch.randn(outputs, inputs, 3, 3, device=place), torch.randn(outputs, device=place)
    weight = weight.to(memory_format=torch.channels_last)
    given = bias if with_bias else None
    ours, wanted = conv_doubled(x, weight, given), ops.conv_doubled(x, weight, given)
    assert ours.shape == wanted.shape
    assert ours.is_contiguous()
    assert relative_error(ours, wanted) <= 1e-6


def test_weights_in_half_precision_are_summed_in_single(place: torch.device) -> None:
    weight = torch.randn(8, 16, 3, 3, device=place).half()
    folded = fold(weight)
    assert folded.shape == (32, 16, 2, 2)
    assert folded.dtype == torch.float16
    # the last row and column of the even phases: four weights fall on one place
    wanted = weight.double()[:, :, 1:, 1:].sum((2, 3)).half()
    assert torch.equal(folded[:8, :, 1, 1], wanted)


def test_the_bias_is_added_in_single(place: torch.device) -> None:
    phases = torch.full((1, 8, 2, 2), 1000.0, device=place).half()
    bias = torch.tensor([0.3, 0.4], device=place).half()
    wanted = (1000 + bias.float()).half().expand(1, 2, 2, 2)
    assert torch.equal(interleave(phases, bias), wanted)
