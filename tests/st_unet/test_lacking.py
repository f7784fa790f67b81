"""Layers whose bias is left to who reads their result, as on CUDA devices: everybody who does adds it."""

from __future__ import annotations

import math

import pytest
import torch

from i2vgen_ms.runtime import chunked, products
from i2vgen_ms.tensors.ops import Ops
from tests.oracle import relative_error
from tests.st_unet.networks import latents
from tests.st_unet.test_shared import FPS, KINDS, T, conditions, network


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "together"), [(1, 0), (2, 0), (2, math.inf)])
@pytest.mark.parametrize("parts", [False, True])
@torch.no_grad()
def test_it_is_the_definition(
    monkeypatch: pytest.MonkeyPatch, kind: str, count: int, together: float, parts: bool
) -> None:
    if parts:
        monkeypatch.setattr(chunked, "BLOCK_LIMIT", 2000)
    left, x = list[int](), latents(height=4, width=6)

    def linear(x: torch.Tensor, layer: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
        made, lacking = products.linear(x, layer)
        left.append(lacking is not None)
        return made, lacking

    several, shared = conditions(kind, count)
    wanted = network(kind)(x, T, **several, **shared)
    table = Ops(linear=linear, together=together, **({"in_parts": chunked.in_parts} if parts else {}))
    assert relative_error(network(kind, table)(x, T, **several, **shared), wanted) <= 1e-5
    assert sum(left) > 10


@pytest.mark.parametrize("together", [0, math.inf])
@torch.no_grad()
def test_what_is_added_in_place_is_nobody_elses(monkeypatch: pytest.MonkeyPatch, together: float) -> None:
    """A table may put the sum of a token and what it lacks in the token's place, in parts that have gaps too."""
    monkeypatch.setattr(chunked, "BLOCK_LIMIT", 2000)

    def in_place(x: torch.Tensor, shift: torch.Tensor, *norm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total, normal = Ops().shift_layer_norm(x, shift, *norm)
        return x.copy_(total), normal

    kind = "image vector and rate"
    several, _ = conditions(kind, 2)
    given = {"x": latents(height=4, width=6), "t": T, "fps": FPS, **several}
    wanted = network(kind)(**given)
    table = Ops(linear=products.linear, shift_layer_norm=in_place, in_parts=chunked.in_parts, together=together)
    for _ in range(2):
        assert relative_error(network(kind, table)(**given), wanted) <= 1e-5
