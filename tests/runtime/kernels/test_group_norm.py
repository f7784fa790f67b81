"""The fused normalisation against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from i2vgen_ms.runtime.kernels import group_norm as fused
from i2vgen_ms.tensors import ops
from tests.oracle import relative_error

CASES: list[tuple[tuple[int, ...], int]] = [
    ((1, 1, 1, 1, 8), 2),
    ((2, 3, 5, 7, 24), 8),
    ((1, 2, 9, 9, 96), 32),
    ((1, 1, 8, 16, 320), 32),
]


@pytest.mark.parametrize(("shape", "groups"), CASES)
@pytest.mark.parametrize("per_frame", [True, False])
@pytest.mark.parametrize("silu", [True, False])
def test_it_is_the_definition(
    monkeypatch: pytest.MonkeyPatch,
    place: torch.device,
    shape: tuple[int, ...],
    groups: int,
    per_frame: bool,
    silu: bool,
) -> None:
    monkeypatch.setattr(fused, "ROWS", 16)  # several tiles a span, and several spans, the last of each short
    monkeypatch.setattr(fused, "SPAN", 40)
    x = torch.randn(shape, device=place) * 3 + 1
    weight, bias = torch.randn(2, shape[-1], device=place)
    options: dict[str, Any] = {"groups": groups, "eps": 1e-5, "per_frame": per_frame, "silu": silu}
    assert (
        relative_error(fused.group_norm(x, weight, bias, **options), ops.group_norm(x, weight, bias, **options)) <= 1e-6
    )


def test_a_large_mean_costs_no_digits(monkeypatch: pytest.MonkeyPatch, place: torch.device) -> None:
    monkeypatch.setattr(fused, "ROWS", 16)
    monkeypatch.setattr(fused, "SPAN", 40)
    x = torch.randn(1, 2, 10, 20, 16, device=place, dtype=torch.float64)
    one, zero = torch.ones(16, device=place), torch.zeros(16, device=place)
    options: dict[str, Any] = {"groups": 4, "eps": 1e-5, "per_frame": False}
    wanted = ops.group_norm(x + 1000, one.double(), zero.double(), **options)
    # What is left is the rounding of the input: 1000 in fp32 has steps of 6e-5.
    assert relative_error(fused.group_norm((x + 1000).float(), one, zero, **options), wanted) <= 1e-4


def test_half_precision_has_statistics_in_single(place: torch.device) -> None:
    x = (torch.randn(1, 2, 40, 40, 64, device=place) * 50).half()
    weight, bias = torch.randn(2, 64, device=place)
    options: dict[str, Any] = {"groups": 8, "eps": 1e-5, "per_frame": False, "silu": True}
    out = fused.group_norm(x, weight.half(), bias.half(), **options)
    assert out.dtype == torch.float16
    assert out.is_contiguous()
    wanted = ops.group_norm(x.float(), weight.half().float(), bias.half().float(), **options)
    assert relative_error(out, wanted) <= 3e-4  # of the result's own rounding


def test_memory_in_another_order_is_read_rightly(place: torch.device) -> None:
    x = torch.randn(1, 2, 16, 4, 6, device=place).permute(0, 1, 3, 4, 2)
    weight, bias = torch.randn(2, 16, device=place)
    options: dict[str, Any] = {"groups": 4, "eps": 1e-5, "per_frame": True}
    assert (
        relative_error(fused.group_norm(x, weight, bias, **options), ops.group_norm(x, weight, bias, **options)) <= 1e-6
    )
