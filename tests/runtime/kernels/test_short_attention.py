"""Attention to a few tokens against its definition."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.runtime.kernels import short_attention
from i2vgen_ms.tensors import attention
from tests.oracle import relative_error


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 64, 1, 1, 64),
        (2, 640, 77, 2, 64),  # more tiles than a program has, and keys in two parts
        (1, 65, 4, 3, 64),
        (1, 70, 16, 1, 40),  # whole parts
        (1, 64, 128, 1, 64),
        (1, 100, 65, 1, 24),
    ],
)
def test_it_is_the_definition(place: torch.device, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if dtype == torch.bfloat16 and place.type == "cpu":
        pytest.skip("Triton's interpreter takes bf16 for whole numbers")
    b, n, m, heads, d = shape
    q, k, v = (torch.randn(b, count, heads, d, device=place).to(dtype) for count in (n, m, m))
    ours = short_attention.attend(q, k, v)
    assert ours.dtype == dtype
    # what is lost is the rounding of the weights and of the result
    wanted = attention.math(*(one.float() for one in (q, k, v)))
    assert relative_error(ours.float(), wanted) <= {torch.float16: 5e-4, torch.bfloat16: 5e-3}[dtype]


def test_it_reads_values_where_they_are(place: torch.device) -> None:
    q = torch.randn(3, 2, 80, 3, 64, device=place).half()[:, 1]
    k, v = torch.randn(1, 9, 2, 3, 64, device=place).half().expand(3, -1, -1, -1, -1).unbind(2)  # all items see these
    ours = short_attention.attend(q, k, v)
    assert relative_error(ours.float(), attention.math(q.float(), k.float(), v.float())) <= 5e-4


def test_no_item_or_head_sees_another(place: torch.device) -> None:
    q, k, v = (torch.randn(2, count, 2, 32, device=place).half() for count in (64, 20, 20))
    wanted = short_attention.attend(q, k, v)
    k[1, :, 0], v[1, :, 0] = 0, 3
    got = short_attention.attend(q, k, v)
    assert torch.equal(got[0], wanted[0])
    assert torch.equal(got[1, :, 1], wanted[1, :, 1])
    assert torch.equal(got[1, :, 0], torch.full_like(got[1, :, 0], 3))


def test_large_scores_do_not_overflow(place: torch.device) -> None:
    q, k = (torch.full((1, count, 1, 64), 200.0, device=place).half() for count in (64, 20))
    v = torch.ones(1, 20, 1, 64, device=place).half()
    # 5e-4: the product that the highest score is taken off is not rounded, the highest is.
    assert relative_error(short_attention.attend(q, k, v), v[:, :1].expand(-1, 64, -1, -1)) <= 1e-3


def test_what_it_does_not_take() -> None:
    def of(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device="meta")

    few, many = of(1, 77, 2, 64), of(1, 2048, 2, 64)
    assert short_attention.takes(many, few, few)
    assert not short_attention.takes(many, many, many)
    assert short_attention.takes(few, *(of(1, 16, 2, 64) for _ in range(2)))
    assert not short_attention.takes(of(1, 2047, 2, 64), few, few)
    assert not short_attention.takes(*(of(1, count, 2, 64, dtype=torch.float32) for count in (2048, 77, 77)))
    assert not short_attention.takes(*(of(1, count, 2, 72) for count in (2048, 77, 77)))
    assert not short_attention.takes(many, few, of(1, 2, 64, 77).permute(0, 3, 1, 2))
    assert not short_attention.takes(many, of(1, 0, 2, 64), of(1, 0, 2, 64))
    assert short_attention.takes(*(of(2**16 - 1, 16, 1, 64) for _ in range(3)))
    assert not short_attention.takes(*(of(2**16, 16, 1, 64) for _ in range(3)))
