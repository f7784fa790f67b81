"""The fused gate, alone and as the end of the product before it, against its definition."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.runtime.kernels.geglu import feed_forward, feed_forward_onto, fits, gated, product
from i2vgen_ms.tensors import ops
from tests.oracle import relative_error

# What the gate of a few numbers may be off by: the sixteenth power makes sixteen of a rounding, and where a gate is
# small beside its number they are all there is.
FEW = 4e-6


@pytest.mark.parametrize("shape", [(1, 2), (3, 5, 64), (2, 3, 2, 2600)])
def test_it_is_the_definition(place: torch.device, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, device=place) * 3
    width = shape[-1]
    # geglu with the identity as its projection
    wanted = ops.geglu(x, torch.eye(width, device=place), torch.zeros(width, device=place))
    assert relative_error(gated(x), wanted) <= FEW


def test_many_gates_are_about_as_good_as_the_definition_is(place: torch.device) -> None:
    # A CUDA device's reciprocal root is not the nearest number: for small gates 16 times worse was seen there.
    for size, worse in ((3, 2), (1, 5), (0.01, 10 if place.type == "cpu" else 20)):
        x = torch.randn(3, 20000, device=place) * size
        wanted = ops.gated(x.double())
        assert relative_error(gated(x), wanted) <= worse * relative_error(ops.gated(x), wanted)


def test_both_tails_of_the_gate(place: torch.device) -> None:
    gate = torch.linspace(-30, 30, 4001, device=place)
    got = gated(torch.cat([torch.ones_like(gate), gate])[None])[0]
    assert (got - torch.nn.functional.gelu(gate.double())).abs().max() <= 2e-6
    assert torch.equal(got[gate < -15], torch.zeros_like(got[gate < -15]))
    assert torch.equal(got[gate > 15], gate[gate > 15])


@pytest.mark.parametrize(("shape", "width"), [((1, 8), 4), ((3, 5, 40), 24), ((2, 150, 72), 136)])
def test_the_product_is_the_definition(place: torch.device, shape: tuple[int, ...], width: int) -> None:
    x, weight = torch.randn(shape, device=place) * 2, torch.randn(2 * width, shape[-1], device=place) / shape[-1] ** 0.5
    bias = torch.randn(2 * width, device=place)
    assert relative_error(product(x, weight, bias), ops.geglu(x, weight, bias)) <= FEW


def test_the_product_in_half_precision_is_summed_in_single(place: torch.device) -> None:
    x, weight = torch.randn(140, 320, device=place).half(), (torch.randn(64, 320, device=place) / 18).half()
    bias = torch.randn(64, device=place).half()
    got = product(x, weight, bias)
    assert got.dtype == torch.float16
    # of the result's own rounding
    assert relative_error(got, ops.geglu(x.float(), weight.float(), bias.float())) <= 3e-4


def test_what_the_product_does_not_take(place: torch.device) -> None:
    def of(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, device=place, dtype=torch.float16)

    modern = place.type != "cuda" or torch.cuda.get_device_capability(place)[0] >= 9
    assert fits(of(3, 16), of(32, 16)) == modern
    assert not fits(of(3, 16).float(), of(32, 16).float())
    assert not fits(of(3, 12), of(32, 12))
    assert not fits(of(3, 16), of(24, 16))
    assert not fits(of(16, 8).T, of(32, 16))
    assert not fits(of(3, 16), of(16, 32).T)
    assert not fits(of(49)[1:].view(3, 16), of(32, 16))
    assert not fits(of(3, 1280), of(32, 1280))


@pytest.mark.parametrize("channels", [16, 648])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_whole_layer(place: torch.device, channels: int, dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, channels, device=place).to(dtype)
    shapes = (64, channels), (64,), (channels, 32), (channels,)
    layer = [(torch.randn(shape, device=place) / channels**0.5).to(dtype) for shape in shapes]
    assert fits(x, layer[0]) == (dtype == torch.float16 and channels == 16)
    wanted = ops.feed_forward(x.double(), *(one.double() for one in layer))
    assert relative_error(feed_forward(x, *layer), wanted) <= (1e-6 if dtype == torch.float32 else 1e-3)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_end_of_a_block(place: torch.device, axis: int | None, dtype: torch.dtype) -> None:
    """Put where it shall be, or not."""
    there = torch.zeros(4, 5, 6, 16, device=place, dtype=dtype)
    part = None if axis is None else there.narrow(axis, 1, 3)
    x, y = torch.randn(2, *(there if part is None else part).shape, device=place).to(dtype)
    norm = tuple(torch.randn(2, 16, device=place).to(dtype))
    shapes = (64, 16), (64,), (16, 32), (16,)
    layers = tuple((torch.randn(shape, device=place) / 4).to(dtype) for shape in shapes)
    double = ([one.double() for one in given] for given in ((x, y), norm, layers))
    (a, b), exact_norm, exact_layers = double
    shift = torch.randn(16, device=place).to(dtype)
    wanted = ops.Ops().feed_forward_of_sum(a, b, tuple(exact_norm), tuple(exact_layers), shift=shift.double())
    got = feed_forward_onto(x, y, norm, layers, shift=shift, out=part)
    assert relative_error(got, wanted) <= (1e-6 if dtype == torch.float32 else 1e-3)
    if part is not None:
        assert got.data_ptr() == part.data_ptr()
        assert relative_error(part, wanted) <= (1e-6 if dtype == torch.float32 else 1e-3)
        part.zero_()
        assert not there.any()
