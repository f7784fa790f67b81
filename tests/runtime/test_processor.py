"""Linear layers by oneDNN: the same numbers, gradients as ever, copies and files as ever."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from i2vgen_ms.runtime import processor
from i2vgen_ms.runtime.operations import table
from i2vgen_ms.tensors import ops
from tests.oracle import relative_error
from tests.runtime.small import HERE, inputs, small_network


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 16), (40, 16), (2, 5, 7, 16)])
def test_it_is_the_definition(shape: tuple[int, ...], bias: bool) -> None:
    layer = nn.Linear(16, 24, bias=bias).requires_grad_(False)
    x = torch.randn(shape)
    with torch.no_grad():
        assert relative_error(processor.linear(x, layer.weight, layer.bias), layer(x)) <= 1e-6
        turned = torch.randn(16, 40).T
        assert relative_error(processor.linear(turned, layer.weight, layer.bias), layer(turned)) <= 1e-6


def test_who_multiplies_what() -> None:
    x, weight = torch.randn(40, 16), torch.randn(24, 16)
    assert not processor.takes(x, weight)  # gradients are asked for
    with torch.no_grad():
        assert processor.takes(x, weight) == torch.backends.mkldnn.is_available()
        assert not processor.takes(x[:3], weight)
        assert not processor.takes(x.double(), weight.double())
        assert not processor.takes(x.to("meta"), weight.to("meta"))


@pytest.mark.parametrize("broken", ["raises", "differs"])
def test_an_operation_that_this_pytorch_has_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def other(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if broken == "raises":
            raise RuntimeError("_linear_pointwise() takes 7 positional arguments")
        return nn.functional.linear(x, weight, bias) * 1.01

    monkeypatch.setattr(processor, "_product", other)
    processor._works.cache_clear()
    try:
        layer, x = nn.Linear(16, 24), torch.randn(40, 16)
        with torch.no_grad():
            assert not processor.takes(x, layer.weight)
            assert torch.equal(processor.linear(x, layer.weight, layer.bias), layer(x))
    finally:
        processor._works.cache_clear()


def test_gradients_are_as_ever() -> None:
    layer = nn.Sequential(nn.Linear(16, 24))
    wanted = copy.deepcopy(layer)
    x = torch.randn(40, 16)
    processor.quicken(layer)(x).sum().backward()
    wanted(x).sum().backward()
    assert torch.equal(layer[0].weight.grad, wanted[0].weight.grad)


def test_a_network_is_the_same_network() -> None:
    ours, wanted = small_network(table(HERE)), small_network()
    with torch.no_grad():
        assert relative_error(processor.quicken(ours)(**inputs()), wanted(**inputs())) <= 1e-5
    assert list(ours.state_dict()) == list(wanted.state_dict())
    assert sum(type(module) is processor.Linear for module in ours.modules()) > 10
    assert isinstance(copy.deepcopy(ours).time_embedding.expand, nn.Linear)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(2, 2, 2, 4), (1, 3, 5, 4), (1, 2, 8, 9)])
def test_convolutions_with_large_weights_are_products(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, ...], bias: bool, order: torch.memory_format
) -> None:
    """And those with small ones are not; both are the definition."""
    products: list[int] = []
    product = processor._product

    def counted(*given: torch.Tensor, **named: torch.Tensor | None) -> torch.Tensor:
        products.append(1)
        return product(*given, **named)

    monkeypatch.setattr(processor, "_product", counted)
    x, shift = torch.randn(*size, 24), torch.randn(40) if bias else None
    wide, along = (torch.randn(40, 24, *kernel).to(memory_format=order) for kernel in ((3, 3), (3, 1)))
    monkeypatch.setattr(processor, "LARGE", 2)
    with torch.no_grad():
        for padding, stride in (((1, 1), 1), ((2, 1), 2), ((0, 0), 1)):
            if min(size[2:]) < 3 and padding == (0, 0):
                continue
            got = processor.conv_spatial(x, wide, shift, stride=stride, padding=padding)
            assert relative_error(got, ops.conv_spatial(x, wide, shift, stride=stride, padding=padding)) <= 1e-6
        assert relative_error(processor.conv_temporal(x, along, shift), ops.conv_temporal(x, along, shift)) <= 1e-6
    assert bool(products) == (wide.numel() >= 2 * x.numel())


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_a_feed_forward_in_parts(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(processor, "ROWS", 1)
    monkeypatch.setattr(processor, "HIDDEN_BYTES", rows * 4 * 48)
    seen: list[int] = []
    part = processor._feed_forward

    def counted(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        seen.append(x.numel() // 6)
        return part(x, *weights)

    monkeypatch.setattr(processor, "_feed_forward", counted)
    x, weights = torch.randn(4, 10, 6), (torch.randn(48, 6), torch.randn(48), torch.randn(5, 24), torch.randn(5))
    with torch.no_grad():
        assert relative_error(processor.feed_forward(x, *weights), ops.feed_forward(x, *weights)) <= 1e-6
    assert max(seen) == rows
    assert sum(seen) == 40


@pytest.mark.parametrize("given_out", [True, False])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("rows", [7, 40])
def test_a_feed_forward_onto_its_sum(monkeypatch: pytest.MonkeyPatch, rows: int, grad: bool, given_out: bool) -> None:
    """The same bits as adding it, and nothing of what is given changes."""
    monkeypatch.setattr(processor, "ROWS", 1)
    monkeypatch.setattr(processor, "HIDDEN_BYTES", rows * 4 * 48)
    x, y = torch.randn(4, 6, 10).transpose(1, 2), torch.randn(4, 10, 6)
    layers = torch.randn(48, 6), torch.randn(48), torch.randn(6, 24), torch.randn(6)
    norm, shift, before = (torch.randn(6), torch.randn(6)), torch.randn(6), x.clone()
    out = torch.empty(4, 10, 6) if given_out else None
    with torch.set_grad_enabled(grad):
        made = table(HERE).feed_forward_of_sum(x, y, norm, layers, shift=shift, out=out)
        total, normal = ops.add_layer_norm(x, y, *norm, shift=shift)
        assert torch.equal(made, total + processor.feed_forward(normal, *layers))
    assert made.is_contiguous() or grad
    assert out is None or made is out
    assert torch.equal(x, before)
