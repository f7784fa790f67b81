"""Attention of wide heads against its definition."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.runtime.kernels import wide_attention
from i2vgen_ms.tensors import attention
from tests.oracle import relative_error


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 300), (2, 7, 9, 2, 264), (1, 33, 50, 1, 512)])
@pytest.mark.parametrize("limit", [1, 256 * 2**20])
def test_it_is_the_definition(
    monkeypatch: pytest.MonkeyPatch, place: torch.device, shape: tuple[int, ...], limit: int
) -> None:
    monkeypatch.setattr(wide_attention, "LIMIT", limit)  # one query at a time, or all
    b, n, m, heads, d = shape
    q, k, v = (torch.randn(b, count, heads, d, device=place).half() for count in (n, m, m))
    assert wide_attention.takes(q, k)
    ours = wide_attention.attend(q, k, v)
    assert ours.dtype == torch.float16
    # what is lost is the rounding of the weights and of the result
    assert relative_error(ours.float(), attention.math(*(one.float() for one in (q, k, v)))) <= 5e-4


def test_many_keys_of_one_weight_neither_overflow_nor_vanish(place: torch.device) -> None:
    q, k = torch.zeros(1, 2, 1, 257, device=place).half(), torch.zeros(1, 20000, 1, 257, device=place).half()
    v = torch.full((1, 20000, 1, 257), 7.0, device=place).half()
    assert torch.equal(wide_attention.attend(q, k, v), torch.full_like(q, 7.0))


def test_large_scores_do_not_overflow(place: torch.device) -> None:
    q, k = (torch.full((1, 3, 1, 512), 60.0, device=place).half() for _ in range(2))
    v = torch.ones(1, 3, 1, 512, device=place).half()
    assert torch.equal(wide_attention.attend(q, k, v), v)


def test_what_it_does_not_take() -> None:
    def of(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device="meta")

    assert wide_attention.takes(of(1, 8, 1, 512), of(1, 8, 1, 512))
    assert not wide_attention.takes(of(1, 8, 1, 256), of(1, 8, 1, 256))
    assert not wide_attention.takes(of(1, 8, 1, 512, dtype=torch.float32), of(1, 8, 1, 512, dtype=torch.float32))
    assert not wide_attention.takes(of(1, 8, 1, 512), of(1, 100000, 1, 512))
