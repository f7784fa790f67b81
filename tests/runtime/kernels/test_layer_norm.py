"""Layer normalisation, alone and behind a sum, against its definition."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.runtime.kernels.layer_norm import add_layer_norm, layer_norm, shift_layer_norm
from i2vgen_ms.tensors import ops
from tests.oracle import relative_error


@pytest.mark.parametrize("shape", [(1, 2), (3, 5, 64), (2, 41, 320), (3, 5000)])
def test_it_is_the_definition(place: torch.device, shape: tuple[int, ...]) -> None:
    x, y = torch.randn(2, *shape, device=place) * 3 + 1
    weight, bias = torch.randn(2, shape[-1], device=place)
    assert relative_error(layer_norm(x, weight, bias), ops.layer_norm(x, weight, bias)) <= 1e-6
    for got, wanted in zip(add_layer_norm(x, y, weight, bias), ops.add_layer_norm(x, y, weight, bias), strict=True):
        assert relative_error(got, wanted) <= 1e-6


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_part_of_a_tensor_is_read_where_it_is(place: torch.device, axis: int) -> None:
    x = torch.randn(4, 6, 8, 20, device=place).narrow(axis, 1, 3)
    y, weight, bias = torch.randn(x.shape, device=place), torch.randn(20, device=place), torch.randn(20, device=place)
    assert relative_error(layer_norm(x, weight, bias), ops.layer_norm(x, weight, bias)) <= 1e-6
    total, norm = add_layer_norm(x, y, weight, bias)
    assert torch.equal(total, x + y)
    assert relative_error(norm, ops.layer_norm(x + y, weight, bias)) <= 1e-6


def test_memory_in_another_order_is_read_rightly(place: torch.device) -> None:
    x, weight, bias = torch.randn(24, 7, device=place).T, torch.randn(24, device=place), torch.randn(24, device=place)
    assert relative_error(layer_norm(x, weight, bias), ops.layer_norm(x, weight, bias)) <= 1e-6


def test_a_large_mean_costs_no_digits(place: torch.device) -> None:
    x = torch.randn(5, 320, device=place, dtype=torch.float64) + 1000
    one, zero = torch.ones(320, device=place), torch.zeros(320, device=place)
    wanted = ops.layer_norm(x, one.double(), zero.double())
    # What is left is the rounding of the input: 1000 in fp32 has steps of 6e-5.
    assert relative_error(layer_norm(x.float(), one, zero), wanted) <= 1e-4


def test_half_precision_has_statistics_in_single(place: torch.device) -> None:
    x, y = (torch.randn(2, 30, 320, device=place) * 50).half()
    weight, bias = torch.randn(2, 320, device=place).half()
    total, norm = add_layer_norm(x, y, weight, bias)
    assert total.dtype == norm.dtype == torch.float16
    assert torch.equal(total, x + y)
    # of the result's own rounding
    assert relative_error(norm, ops.layer_norm(total.float(), weight.float(), bias.float())) <= 3e-4


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_sum_is_put_where_it_shall_be_and_shifted_after_it_is_normalised(place: torch.device, axis: int) -> None:
    there = torch.zeros(4, 6, 8, 20, device=place)
    part = there.narrow(axis, 1, 3)
    x, y = torch.randn(2, *part.shape, device=place)
    weight, bias, shift, after = torch.randn(4, 20, device=place)
    total, norm = add_layer_norm(x, y, weight, bias, shift=shift, after=after, total=part)
    assert total.data_ptr() == part.data_ptr()
    assert relative_error(part, x + y + shift + after) <= 1e-6
    assert relative_error(norm, ops.layer_norm(x + y + shift, weight, bias)) <= 1e-6
    part.zero_()
    assert not there.any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_lacking_is_added_in_place_and_normalised_with_it(place: torch.device, axis: int) -> None:
    whole, (weight, bias, shift) = torch.randn(4, 6, 8, 20, device=place), torch.randn(3, 20, device=place)
    part = whole.narrow(axis, 1, 3)
    before, wanted = whole.clone(), ops.shift_layer_norm(part, shift, weight, bias)
    for got, one in zip(shift_layer_norm(part, shift, weight, bias), wanted, strict=True):
        assert relative_error(got, one) <= 1e-6
    assert relative_error(part, wanted[0]) <= 1e-6
    part.copy_(before.narrow(axis, 1, 3))
    assert torch.equal(whole, before)


def test_a_sum_whose_rows_do_not_lie_side_by_side_is_refused(place: torch.device) -> None:
    x, one = torch.randn(6, 4, device=place), torch.ones(4, device=place)
    with pytest.raises(ValueError, match=r"total has no rows side by side: shape \(6, 4\), strides \(1, 6\)"):
        add_layer_norm(x, x, one, one, total=torch.zeros(4, 6, device=place).T)
