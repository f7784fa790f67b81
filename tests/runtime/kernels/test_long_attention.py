"""Attention of many tokens against its definition, on Hopper devices; elsewhere that it compiles for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from i2vgen_ms.runtime import trial
from i2vgen_ms.runtime.kernels import long_attention
from i2vgen_ms.tensors import attention
from i2vgen_ms.tensors.ops import Ops
from tests.oracle import relative_error
from tests.runtime.uninterpreted import python

hopper = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="needs a Hopper device"
)


@hopper
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 2048, 2048, 1),  # whole tiles
        (2, 2300, 2300, 2),
        (1, 192, 1, 3),  # of keys the last are masked, and there may be less than a tile of them
        (3, 65, 129, 2),
        (1, 1, 256, 1),
    ],
)
def test_it_is_the_definition(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    b, n, m, heads = shape
    q, k, v = (torch.randn(b, count, heads, 64, device="cuda").to(dtype) for count in (n, m, m))
    ours, wanted = long_attention.attend(q, k, v), attention.math(q.float(), k.float(), v.float())
    assert ours.dtype == dtype
    assert relative_error(ours.float(), wanted) <= {torch.float16: 5e-4, torch.bfloat16: 5e-3}[dtype]
    assert torch.equal(ours, long_attention.attend(q, k, v))


@hopper
def test_it_reads_values_where_they_are() -> None:
    together = torch.randn(2, 2100, 3, 2, 64, device="cuda").half()  # b n (q k v) heads d, as one product gives them
    q, k, v = together.unbind(2)
    assert long_attention.takes(q, k, v)
    assert relative_error(long_attention.attend(q, k, v).float(), attention.math(*together.float().unbind(2))) <= 5e-4


@hopper
def test_no_item_sees_another() -> None:
    q, k, v = (torch.randn(3, 2100, 1, 64, device="cuda").half() for _ in range(3))
    wanted = long_attention.attend(q, k, v)
    k[1], v[1] = float("nan"), float("nan")
    got = long_attention.attend(q, k, v)
    assert torch.equal(got[::2], wanted[::2])
    assert bool(got[1].isnan().all())


@hopper
def test_large_scores_do_not_overflow() -> None:
    q, k = (torch.full((1, 2048, 1, 64), 200.0, device="cuda").half() for _ in range(2))
    v = torch.ones(1, 2048, 1, 64, device="cuda").half()
    # Scores of 461000 are rounded to steps of 0.03 where their highest is taken off, and the weights to fp16.
    assert relative_error(long_attention.attend(q, k, v), v) <= 1e-3


def test_what_is_tried_before_it_is_used_is_for_this_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_attention, "on_hopper", lambda device: True)
    taken = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        taken.append(q.shape[1] if long_attention.takes(q, k, v) else None)
        return attention.math(q, k, v)

    assert not trial.failures(Ops(attention=attend), torch.device("cpu"))
    assert [count % long_attention.TILE["KEYS"] != 0 for count in taken if count] == [True]


def test_what_it_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    fits = of(2, 2048, 2, 64)
    assert not long_attention.takes(fits, fits, fits)
    monkeypatch.setattr(long_attention, "on_hopper", lambda device: True)
    assert long_attention.takes(fits, fits, fits)
    assert long_attention.takes(*of(2, 2048, 3, 2, 64).unbind(2))
    assert not long_attention.takes(*(of(2, 2048, 2, 64, dtype=torch.float32) for _ in range(3)))
    assert not long_attention.takes(*(of(2, 2048, 2, 32) for _ in range(3)))
    assert not long_attention.takes(of(2, 2047, 2, 64), fits, fits)
    assert not long_attention.takes(fits, of(2, 77, 2, 64), of(2, 77, 2, 64))
    assert not long_attention.takes(fits, fits, of(1, 2048, 2, 64).expand(2, -1, -1, -1))
    assert not long_attention.takes(fits, fits, of(2, 2, 2048, 64).transpose(1, 2))
    assert not long_attention.takes(fits, fits, of(2 * 2048 * 2 * 64 + 1)[1:].view(2, 2048, 2, 64))


def test_it_compiles_for_hopper_and_keeps_everything_in_registers(tmp_path: Path) -> None:
    printed = python(tmp_path, "-m", "tests.runtime.kernels.compiled_for_hopper", "long_attention")
    for one in json.loads(printed):
        assert one["wgmma"] >= 3 * 12  # three groups, of which each has products in several places
        assert (one["stack"], one["local"]) == (0, 0)
