"""Several layers of one input as one product, and one whose bias is left to who reads it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from i2vgen_ms.runtime import products
from i2vgen_ms.tensors import ops
from tests.oracle import relative_error


@pytest.fixture
def layers() -> list[nn.Linear]:
    return [nn.Linear(12, width, bias=False, dtype=torch.float64).requires_grad_(False) for width in (8, 20, 4)]


def test_it_is_the_definition_in_one_product(layers: list[nn.Linear], monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 12, dtype=torch.float64)
    wanted = ops.linears(x, layers)
    calls = []
    real = torch.nn.functional.linear
    monkeypatch.setattr(products.F, "linear", lambda *given: calls.append(given) or real(*given))
    ours = products.linears(x, layers)
    assert [one.shape for one in ours] == [(2, 3, 8), (2, 3, 20), (2, 3, 4)]
    assert all(relative_error(one, other) <= 1e-14 for one, other in zip(ours, wanted, strict=True))
    assert len(calls) == 1


def test_weights_that_lie_together_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    together, x = torch.randn(3 * 8, 12, dtype=torch.float64), torch.randn(5, 12, dtype=torch.float64)
    layers = [nn.Linear(12, 8, bias=False, dtype=torch.float64).requires_grad_(False) for _ in range(3)]
    for layer, part in zip(layers, together.split(8), strict=True):
        layer.weight.data = part
    copies = []
    real = torch.cat
    monkeypatch.setattr(torch, "cat", lambda *given: copies.append(given) or real(*given))
    for order, count in (([0, 1, 2], 0), ([1, 2], 0), ([0, 2], 1), ([2, 1], 1), ([1, 1], 1)):
        copies.clear()
        some = [layers[index] for index in order]
        ours, wanted = (one(x, some) for one in (products.linears, ops.linears))
        assert all(relative_error(one, other) <= 1e-14 for one, other in zip(ours, wanted, strict=True))
        assert len(copies) == count


def test_gradients_reach_every_weight() -> None:
    together, x = torch.randn(2 * 8, 12, dtype=torch.float64), torch.randn(5, 12, dtype=torch.float64)
    layers = [nn.Linear(12, 8, bias=False, dtype=torch.float64) for _ in range(2)]
    for layer, part in zip(layers, together.split(8), strict=True):
        layer.weight.data = part
    sum(one.square().sum() for one in products.linears(x, layers)).backward()  # type: ignore[union-attr]
    for layer in layers:
        assert relative_error(layer.weight.grad, 2 * (x @ layer.weight.detach().T).T @ x) <= 1e-14


def test_weights_that_change_are_used_as_they_are(layers: list[nn.Linear]) -> None:
    x = torch.randn(5, 12, dtype=torch.float64)
    products.linears(x, layers)
    layers[1].weight.data *= 2
    assert relative_error(products.linears(x, layers)[1], ops.linears(x, layers)[1]) <= 1e-14


def test_layers_that_are_more_than_a_product_are_called(layers: list[nn.Linear]) -> None:
    class Adapted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    x = torch.randn(5, 12, dtype=torch.float64)
    adapted = Adapted(12, 8, bias=False, dtype=torch.float64).requires_grad_(False)
    for others in ([adapted, *layers], [*layers, nn.Linear(12, 8, dtype=torch.float64)]):
        ours, wanted = (one(x, others) for one in (products.linears, ops.linears))
        assert all(torch.equal(one, other) for one, other in zip(ours, wanted, strict=True))


@pytest.mark.parametrize("how", ["hook", "hook before", "forward"])
def test_a_layer_that_somebody_changed_is_called(layers: list[nn.Linear], how: str) -> None:
    x, layer = torch.randn(5, 12, dtype=torch.float64), layers[1]
    if how == "hook":
        layer.register_forward_hook(lambda *given: given[2] * 2)
    elif how == "hook before":
        layer.register_forward_pre_hook(lambda _, given: (given[0] * 2,))
    else:
        layer.forward = lambda x: 2 * nn.functional.linear(x, layer.weight)  # type: ignore[method-assign]
    ours, wanted = (one(x, layers) for one in (products.linears, ops.linears))
    assert all(torch.equal(one, other) for one, other in zip(ours, wanted, strict=True))


def test_a_narrow_layer_lacks_its_bias() -> None:
    x, layer = torch.randn(5, 12), nn.Linear(12, products.NARROW)
    made, lacking = products.linear(x, layer)
    assert lacking is layer.bias
    assert relative_error((made + lacking).detach(), layer(x).detach()) <= 1e-6
    assert relative_error(made.detach(), layer(x).detach()) > 0.1


@pytest.mark.parametrize("what", ["wide", "no bias", "identity", "hook", "adapted"])
def test_other_layers_lack_nothing(what: str) -> None:
    class Adapted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    made: nn.Module = Adapted(12, 8) if what == "adapted" else nn.Linear(12, 8, bias=what != "no bias")
    if what == "wide":
        made = nn.Linear(12, products.NARROW + 1)
    if what == "identity":
        made = nn.Identity()
    if what == "hook":
        made.register_forward_hook(lambda *given: given[2] * 2)
    x = torch.randn(5, 12)
    ours, lacking = products.linear(x, made)
    assert lacking is None
    assert torch.equal(ours, made(x))
