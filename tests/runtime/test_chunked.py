"""What is done in parts is what would be done at once."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch

from i2vgen_ms.runtime import chunked
from i2vgen_ms.tensors import ops
from i2vgen_ms.tensors.ops import Ops
from tests.oracle import relative_error
from tests.runtime.small import inputs, small_network

PARTS = Ops(
    group_norm=chunked.group_norm,
    conv_spatial=chunked.conv_spatial,
    feed_forward=chunked.feed_forward,
    in_parts=chunked.in_parts,
    by_frames=chunked.by_frames,
)


@pytest.mark.parametrize("limit", [1, 3000, 10**9])
@pytest.mark.parametrize("per_frame", [True, False])
def test_group_norm(monkeypatch: pytest.MonkeyPatch, limit: int, per_frame: bool) -> None:
    monkeypatch.setattr(chunked, "LIMIT", limit)
    x, weight, bias = torch.randn(2, 3, 4, 5, 24), torch.randn(24), torch.randn(24)
    options: dict[str, Any] = {"groups": 8, "eps": 1e-5, "per_frame": per_frame, "silu": True}
    options["shift"] = torch.randn(2, 24)
    out = chunked.group_norm(x, weight, bias, **options)
    # torch's CPU kernel sums in another order for other strides; the CUDA kernel gives the same bits.
    assert relative_error(out, ops.group_norm(x, weight, bias, **options)) <= 1e-6
    assert limit > 10**6 or out.is_contiguous()


@pytest.mark.parametrize("limit", [1, 5000, 10**9])
def test_feed_forward(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(chunked, "LIMIT", limit)
    x, first = torch.randn(2, 7, 8), torch.nn.Linear(8, 64).requires_grad_(False)
    second = torch.nn.Linear(32, 8).requires_grad_(False)
    weights = (first.weight, first.bias, second.weight, second.bias)
    got, wanted = chunked.feed_forward(x, *weights), ops.feed_forward(x, *weights)
    assert got.shape == wanted.shape
    assert relative_error(got, wanted) <= 1e-6


@pytest.mark.parametrize("limit", [1, 1500, 10**9])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, (1, 1)), (1, 1, (0, 0)), (3, 2, (1, 1)), (3, 1, (1, 0)), (3, 1, (0, 0))]
)
def test_conv_spatial(
    monkeypatch: pytest.MonkeyPatch, limit: int, kernel: int, stride: int, padding: tuple[int, int]
) -> None:
    monkeypatch.setattr(chunked, "LIMIT", limit)
    x, weight, bias = torch.randn(2, 3, 7, 5, 4), torch.randn(6, 4, kernel, kernel), torch.randn(6)
    got = chunked.conv_spatial(x, weight, bias, stride=stride, padding=padding)
    wanted = ops.conv_spatial(x, weight, bias, stride=stride, padding=padding)
    assert got.shape == wanted.shape
    assert relative_error(got, wanted) <= 1e-6


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("limit", [1, 3000, 10**9])
def test_in_parts(monkeypatch: pytest.MonkeyPatch, limit: int, axis: int) -> None:
    monkeypatch.setattr(chunked, "BLOCK_LIMIT", limit)
    x, y = torch.randn(5, 3, 7, 4), torch.randn(5, 1, 7, 4)
    sizes: list[int] = []

    def function(x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
        sizes.append(x.shape[axis])
        return ops.add(x, y, out=out)

    assert torch.equal(chunked.in_parts(function, x, y, axis=axis), x + y)
    assert sum(sizes) == x.shape[axis]
    assert max(sizes) - min(sizes) <= 1
    assert (len(sizes) > 1) == (limit < 10**6)


@pytest.mark.parametrize(("limit", "whole", "parts"), [(1, 1, 5), (640, 1, 3), (1, 10**9, 1)])
def test_by_frames(monkeypatch: pytest.MonkeyPatch, limit: int, whole: int, parts: int) -> None:
    monkeypatch.setattr(chunked, "FRAMES_LIMIT", limit)
    monkeypatch.setattr(chunked, "WHOLE", whole)
    x, y = torch.randn(2, 5, 2, 1, 4), torch.randn(2, 5, 2, 1, 4)
    given, sizes = [x, y], list[int]()

    def function(some: list[torch.Tensor], out: torch.Tensor | None = None) -> torch.Tensor:
        sizes.append(some[0].shape[1])
        return ops.add(some.pop(), some.pop(), out=out)

    assert torch.equal(chunked.by_frames(function, given, tuple(x.shape)), x + y)
    assert given == []
    assert len(sizes) == parts
    assert sum(sizes) == 5


def test_the_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIMIT", "BLOCK_LIMIT", "FRAMES_LIMIT"):  # parts of every kind
        monkeypatch.setattr(chunked, name, 2000)
    monkeypatch.setattr(chunked, "WHOLE", 1)
    wanted = small_network()(**inputs())
    with torch.no_grad():
        got = small_network(PARTS)(**inputs())
    assert 0 < relative_error(got, wanted) <= 1e-5 or torch.equal(got, wanted)


def test_what_a_block_joins_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest tensors of all are gone before what follows the block's first half begins."""
    network, widest = small_network(), list[Any]()
    join = network.ops.join

    def watched(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = join(x, y)
        widest.append(weakref.ref(out))
        return out

    for module in network.modules():
        if hasattr(module, "ops"):
            module.ops = replace(network.ops, join=watched)
    later: list[bool] = []
    for level in network.up:
        for stage in level.stages:
            stage.residual.temporal.register_forward_pre_hook(lambda *_: later.append(widest[-1]() is None))
    with torch.no_grad():
        network(**inputs())
    assert later
    assert all(later)
