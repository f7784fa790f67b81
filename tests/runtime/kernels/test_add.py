"""Sums in one pass, against their definition."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.runtime.kernels.add import add, add_bias_
from i2vgen_ms.tensors import ops
from tests.oracle import relative_error


@pytest.mark.parametrize("shape", [(1, 2), (3, 5, 64), (1, 2, 9, 9, 70)])
@pytest.mark.parametrize("biased", [True, False])
def test_it_is_the_definition(place: torch.device, shape: tuple[int, ...], biased: bool) -> None:
    x, y = torch.randn(2, *shape, device=place)
    bias = torch.randn(shape[-1], device=place) if biased else None
    assert relative_error(add(x, y, bias), ops.add(x, y, bias)) <= 1e-7


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_result_may_be_a_part_of_a_tensor(place: torch.device, axis: int) -> None:
    whole = torch.zeros(4, 6, 8, 20, device=place)
    part = whole.narrow(axis, 1, 3)
    x, y = torch.randn(2, *part.shape, device=place)
    assert add(x, y, out=part) is part
    assert torch.equal(part, x + y)
    assert whole.count_nonzero() == part.count_nonzero()


def test_what_lies_in_another_order_is_refused(place: torch.device) -> None:
    x, y = torch.randn(2, 4, 6, device=place)
    with pytest.raises(ValueError, match="strides"):
        add(x, y, out=torch.zeros(6, 4, device=place).T)


def test_a_bias_in_place(place: torch.device) -> None:
    y, bias = torch.randn(3, 7, 70, device=place), torch.randn(70, device=place)
    wanted = y + bias
    got = add_bias_(y, bias)
    assert got.data_ptr() == y.data_ptr()
    assert torch.equal(got, wanted)


def test_half_precision_is_rounded_once(place: torch.device) -> None:
    x, y = torch.randn(2, 3, 40, 64, device=place).half()
    bias = torch.randn(64, device=place).half()
    wanted = (x.float() + y.float() + bias.float()).half()
    assert torch.equal(add(x, y, bias), wanted)
