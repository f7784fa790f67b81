"""Copies in one pass, against their definitions: the same bits."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.runtime.kernels.copies import double, join
from i2vgen_ms.tensors import ops


@pytest.mark.parametrize(("groups", "items"), [(1, 1), (1, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize(("channels", "others"), [(64, 64), (5, 3), (70, 90)])
def test_side_by_side(place: torch.device, groups: int, items: int, channels: int, others: int) -> None:
    x = torch.randn(groups * items, 2, 3, 5, channels, device=place)
    y = torch.randn(items, 2, 3, 5, others, device=place)
    got = join(x, y)
    assert torch.equal(got, ops.join(x, y))
    assert torch.equal(got.unflatten(0, (groups, items))[-1, :, ..., channels:], y)


@pytest.mark.parametrize("crop", [0, 1, 2])
@pytest.mark.parametrize("shape", [(1, 1, 3, 2, 4), (2, 3, 5, 40, 70)])
def test_twice_the_size(place: torch.device, shape: tuple[int, ...], crop: int) -> None:
    x = torch.randn(shape, device=place).half()
    got = double(x, crop=crop)
    assert torch.equal(got, ops.double(x, crop=crop))
    assert got.shape == (*shape[:2], 2 * shape[2] - 2 * crop, 2 * shape[3], shape[4])
    assert got.is_contiguous()


def test_memory_in_another_order_is_read_rightly(place: torch.device) -> None:
    x, y = torch.randn(2, 1, 2, 8, 4, 6, device=place).transpose(3, 5)
    assert torch.equal(join(x, y), ops.join(x, y))
    assert torch.equal(double(x, crop=1), ops.double(x, crop=1))
