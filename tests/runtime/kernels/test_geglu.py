"""The fused gate against its definition."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.runtime.kernels.geglu import gated
from i2vgen_ms.tensors import ops
from tests.oracle import relative_error


@pytest.mark.parametrize("shape", [(1, 2), (3, 5, 64), (2, 3, 2, 2600)])
def test_it_is_the_definition(place: torch.device, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, device=place) * 3
    width = shape[-1]
    # geglu with the identity as its projection
    wanted = ops.geglu(x, torch.eye(width, device=place), torch.zeros(width, device=place))
    assert relative_error(gated(x), wanted) <= 1e-6
