"""Attention over frames in one launch, against its definition."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.runtime.kernels.frame_attention import over_frames, takes
from i2vgen_ms.tensors import attention
from tests.oracle import relative_error


def definition(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return attention.over_frames(attention.math, q, k, v)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 16), (2, 5, 3, 2, 40), (1, 16, 4, 2, 64), (1, 33, 2, 1, 20)])
def test_it_is_the_definition(place: torch.device, shape: tuple[int, ...]) -> None:
    q, k, v = (torch.randn(shape, device=place) * 2 for _ in range(3))
    assert takes(q, k, v)
    assert relative_error(over_frames(q, k, v), definition(q, k, v)) <= 1e-6


def test_it_reads_values_where_they_are(place: torch.device) -> None:
    together = torch.randn(2, 6, 3, 3, 4, 32, device=place)  # b f n (q k v) heads d, as one projection gives them
    q, k, v = together.unbind(3)
    assert not q.is_contiguous()
    assert takes(q, k, v)
    assert relative_error(over_frames(q, k, v), definition(q, k, v)) <= 1e-6


def test_large_scores_do_not_overflow(place: torch.device) -> None:
    q, k, v = (torch.randn(1, 8, 2, 1, 16, device=place) * size for size in (60, 60, 1))
    assert relative_error(over_frames(q, k, v), definition(q, k, v)) <= 1e-5


def test_what_it_does_not_take() -> None:
    def of(*shape: int) -> torch.Tensor:
        return torch.zeros(shape)

    fits = of(1, 8, 2, 1, 16)
    assert not takes(fits, of(1, 4, 2, 1, 16), of(1, 4, 2, 1, 16))
    assert not takes(*(of(1, 129, 1, 1, 16) for _ in range(3)))
    assert not takes(*(of(1, 8, 1, 1, 160) for _ in range(3)))
    assert not takes(fits, fits, fits.half())
    assert not takes(*(of(1, 8, 2, 16, 4).transpose(3, 4) for _ in range(3)))
