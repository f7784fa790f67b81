"""The fused normalisation against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from i2vgen_ms.runtime.kernels import group_norm as fused
from i2vgen_ms.tensors import moments, ops
from tests.oracle import relative_error

CASES: list[tuple[tuple[int, ...], int]] = [
    ((1, 1, 1, 1, 8), 2),
    ((2, 3, 5, 7, 24), 8),
    ((1, 2, 9, 9, 96), 32),
    ((1, 1, 8, 16, 320), 32),
]


@pytest.fixture(autouse=True, params=[0, 2**30], ids=["split", "whole"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group's values are split among programs, or one has them all."""
    monkeypatch.setattr(fused, "WHOLE", request.param)


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
    monkeypatch.setattr(fused, "ROWS", 16)  # several tiles
    monkeypatch.setattr(fused, "_span", lambda places, others: 40)  # and spans of several, the last of each short
    x = torch.randn(shape, device=place) * 3 + 1
    weight, bias = torch.randn(2, shape[-1], device=place)
    options: dict[str, Any] = {"groups": groups, "eps": 1e-5, "per_frame": per_frame, "silu": silu}
    assert (
        relative_error(fused.group_norm(x, weight, bias, **options), ops.group_norm(x, weight, bias, **options)) <= 1e-6
    )


def test_a_large_mean_costs_no_digits(monkeypatch: pytest.MonkeyPatch, place: torch.device) -> None:
    monkeypatch.setattr(fused, "_span", lambda places, others: 40)
    x = torch.randn(1, 2, 10, 20, 16, device=place, dtype=torch.float64)
    one, zero = torch.ones(16, device=place), torch.zeros(16, device=place)
    options: dict[str, Any] = {"groups": 4, "eps": 1e-5, "per_frame": False}
    wanted = ops.group_norm(x + 1000, one.double(), zero.double(), **options)
    # What is left is the rounding of the input: 1000 in fp32 has steps of 6e-5.
    assert relative_error(fused.group_norm((x + 1000).float(), one, zero, **options), wanted) <= 1e-4


@pytest.mark.parametrize("per_frame", [True, False])
@pytest.mark.parametrize("videos", [0, 1, 3])
def test_what_is_lacking_is_added_first(place: torch.device, per_frame: bool, videos: int) -> None:
    x, weight, bias = torch.randn(3, 2, 5, 7, 24, device=place), *torch.randn(2, 24, device=place)
    shift = torch.randn(*([videos] if videos else []), 24, device=place) * 5
    options: dict[str, Any] = {"groups": 4, "eps": 1e-5, "per_frame": per_frame, "silu": True, "shift": shift}
    got, wanted = fused.group_norm(x, weight, bias, **options), ops.group_norm(x, weight, bias, **options)
    assert relative_error(got, wanted) <= 1e-6
    wanted = ops.group_norm(x + shift.reshape(-1, 1, 1, 1, 24), weight, bias, **{**options, "shift": None})
    assert relative_error(got, wanted) <= 1e-6


def test_a_first_tile_far_from_the_rest_costs_no_digits(monkeypatch: pytest.MonkeyPatch, place: torch.device) -> None:
    monkeypatch.setattr(fused, "_span", lambda places, others: 512)
    x = torch.randn(1, 1, 32, 16, 8, device=place, dtype=torch.float64)
    x[:, :, :2] += 1000  # as a black border does
    one, zero = torch.ones(8, device=place), torch.zeros(8, device=place)
    options: dict[str, Any] = {"groups": 2, "eps": 1e-5, "per_frame": True}
    wanted = ops.group_norm(x.float().double(), one.double(), zero.double(), **options)
    assert relative_error(fused.group_norm(x.float(), one, zero, **options), wanted) <= 1e-6


@pytest.mark.parametrize(("places", "others"), [(1, 1), (896, 20), (14400, 160), (460800, 5), (10**7, 1000)])
def test_spans_are_whole_tiles_and_enough(places: int, others: int) -> None:
    span = fused._span(places, others)
    assert span % fused.SUMMED == 0
    assert fused.SHORTEST <= span <= fused.SPAN
    programs = -(-places // span) * others
    assert span == fused.SHORTEST or programs >= fused.PROGRAMS // 2


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


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_its_halves_are_their_definitions(
    monkeypatch: pytest.MonkeyPatch, place: torch.device, shifted: bool, dtype: torch.dtype
) -> None:
    """The scales of whole frames, and a strip of them, which lies somewhere within its frame, multiplied."""
    monkeypatch.setattr(fused, "_span", lambda places, others: 40)
    x = (torch.randn(2, 3, 9, 7, 24, device=place) * 3 + 1).to(dtype)
    weight, bias, shift = torch.randn(3, 24, device=place).to(dtype).unbind()
    options: dict[str, Any] = {"groups": 4, "eps": 1e-5, "rows": 2, "shift": shift * 5 if shifted else None}
    got, wanted = (one.group_scales(x, weight, bias, **options) for one in (fused, moments))
    for ours, definition in zip(got, wanted, strict=True):
        assert ours.shape == definition.shape == (2, 3, 1, 1, 24)
        assert ours.dtype == definition.dtype == torch.float32
        assert relative_error(ours, definition) <= 1e-5
    strip = x[:, :, 2:7]
    scaled = fused.scaled_silu(strip, *wanted)
    assert (scaled.dtype, scaled.shape) == (dtype, strip.shape)
    rounding = 1e-6 if dtype == torch.float32 else 5e-4
    assert relative_error(scaled.float(), moments.scaled_silu(strip.float(), *wanted)) <= rounding
