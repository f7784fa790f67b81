"""The gate's product of few channels against its definition, on Hopper devices; elsewhere that it compiles for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from i2vgen_ms.runtime import trial
from i2vgen_ms.runtime.kernels import narrow_geglu
from i2vgen_ms.tensors import ops
from i2vgen_ms.tensors.ops import Ops
from tests.oracle import relative_error
from tests.runtime.kernels.test_long_attention import hopper
from tests.runtime.uninterpreted import python

# What a multiprocessor of a Hopper device has for the blocks of one program, 228 KiB less what the system takes.
SHARED = 227 * 1024


@hopper
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "summed", "width"),
    [
        (64, 64, 128),  # one tile
        (57344, 320, 1280),
        (16445, 272, 32),  # tiles, steps and channels that are not whole
        (9000, 320, 136),
        (1, 8, 8),
    ],
)
def test_it_is_the_definition(dtype: torch.dtype, rows: int, summed: int, width: int) -> None:
    x = (torch.randn(rows, summed, device="cuda") * 2).to(dtype)
    weight = (torch.randn(2 * width, summed, device="cuda") / summed**0.5).to(dtype)
    bias = torch.randn(2 * width, device="cuda").to(dtype)
    ours, wanted = narrow_geglu.product(x, weight, bias), ops.geglu(x.float(), weight.float(), bias.float())
    assert ours.dtype == dtype
    # of the result's own rounding
    assert relative_error(ours.float(), wanted) <= {torch.float16: 3e-4, torch.bfloat16: 3e-3}[dtype]
    for _ in range(5):
        assert torch.equal(ours, narrow_geglu.product(x, weight, bias))


@hopper
def test_it_writes_nothing_beside_its_result() -> None:
    x, weight, bias = (torch.randn(shape, device="cuda").half() for shape in ((70, 64), (16, 64), (16,)))
    whole = torch.full((200, 8), 7.0, device="cuda").half()
    real = torch.Tensor.new_empty
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "new_empty", lambda self, *shape, **named: whole[50:120])
        narrow_geglu.product(x, weight, bias)
    assert torch.Tensor.new_empty is real
    assert torch.equal(whole[:50], torch.full_like(whole[:50], 7))
    assert torch.equal(whole[120:], torch.full_like(whole[120:], 7))
    assert not torch.equal(whole[50:120], torch.full_like(whole[50:120], 7))


def test_what_is_tried_before_it_is_used_is_for_this_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow_geglu, "on_hopper", lambda device: True)
    taken = []

    def feed_forward(x: torch.Tensor, weight: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        if narrow_geglu.fits(x, weight):
            taken.append(x.shape)
        return ops.feed_forward(x, weight, *others)

    assert not trial.failures(Ops(feed_forward=feed_forward), torch.device("cpu"))
    (shape,) = taken
    assert shape[0] % narrow_geglu.ROWS != 0
    # As many steps as the widest input has, for which the kernel is compiled.
    assert -(-shape[1] // narrow_geglu.DEPTH) == -(-narrow_geglu.WIDEST // narrow_geglu.DEPTH)


def test_what_it_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    tokens, weight = of(2, narrow_geglu.FEWEST // 2, 64), of(32, 64)
    assert not narrow_geglu.fits(tokens, weight)
    monkeypatch.setattr(narrow_geglu, "on_hopper", lambda device: True)
    assert narrow_geglu.fits(tokens, weight)
    assert not narrow_geglu.fits(tokens[:, 1:].contiguous(), weight)
    assert not narrow_geglu.fits(of(narrow_geglu.FEWEST, 328), of(32, 328))
    assert not narrow_geglu.fits(tokens.float(), weight.float())
    assert not narrow_geglu.fits(tokens, of(8, 64))


def test_it_compiles_for_hopper_and_keeps_everything_in_registers(tmp_path: Path) -> None:
    printed = python(tmp_path, "-m", "tests.runtime.kernels.compiled_for_hopper", "narrow_geglu")
    for one in json.loads(printed):
        assert one["wgmma"] == 2 * 5 * narrow_geglu.DEPTH // 16  # two groups, each of whose tiles has five steps
        assert (one["stack"], one["local"]) == (0, 0)
        assert one["shared"] <= SHARED
