"""Convolutions with fewer products: the definition, and no digit less; used where they are faster alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from i2vgen_ms.runtime import processor, winograd
from i2vgen_ms.runtime.operations import table
from i2vgen_ms.tensors import ops
from tests.autoencoder.peak import PeakBytes
from tests.oracle import relative_error
from tests.runtime.small import HERE


@pytest.fixture(autouse=True)
def _without_gradients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And with as few channels as tests have."""
    monkeypatch.setattr(winograd, "CHANNELS", 16)
    with torch.no_grad():
        yield


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Is filled with the shapes of what is multiplied with matrices."""
    seen: list[tuple[int, ...]] = []
    if not processor._available():  # which multiplies, once
        pytest.skip("this PyTorch has no oneDNN, and convolutions are as ever")
    product = processor._product

    def counted(x: Tensor, *given: Tensor, **named: Tensor | None) -> Tensor:
        seen.append(tuple(x.shape))
        return product(x, *given, **named)

    monkeypatch.setattr(processor, "_product", counted)
    return seen


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def agreeing(name: str, x: Tensor, weight: Tensor, bias: bool) -> Tensor:
    """What the convolution of that name gives, which is its definition."""
    shift = normal(len(weight), seed=2) if bias else None
    got: Tensor = getattr(processor, name)(x, weight, shift)
    wanted = getattr(ops, name)(x.double(), weight.double(), None if shift is None else shift.double())
    assert relative_error(got, wanted) <= 5e-7
    return got


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("size", "some", "parts"),
    [
        ((2, 3, 8, 12), 2**26, 1),
        ((2, 3, 8, 12), 200_000, 3),  # two frames at a time
        ((1, 1, 20, 20), 80_000, 5),  # four rows
        ((1, 2, 20, 20), 1, 20),  # two, which is the least
    ],
)
def test_within_frames_it_is_the_definition(
    monkeypatch: pytest.MonkeyPatch,
    products: list[tuple[int, ...]],
    size: tuple[int, ...],
    some: int,
    parts: int,
    bias: bool,
    order: torch.memory_format,
) -> None:
    monkeypatch.setattr(winograd, "SOME", some)
    x, weight = normal(*size, 24), normal(40, 24, 3, 3, seed=1).to(memory_format=order)
    assert agreeing("conv_spatial", x, weight, bias).is_contiguous()
    assert products == [(x[..., 0].numel() // 4 // parts, 24)] * 16 * parts


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("frames", "some", "parts"), [(2, 2**26, 1), (8, 2**26, 1), (8, 200_000, 9)])
def test_along_frames_it_is_the_definition(
    monkeypatch: pytest.MonkeyPatch,
    products: list[tuple[int, ...]],
    frames: int,
    some: int,
    parts: int,
    bias: bool,
    order: torch.memory_format,
) -> None:
    monkeypatch.setattr(winograd, "SOME", some)
    x, weight = normal(2, frames, 9, 13, 24), normal(40, 24, 3, 1, seed=1).to(memory_format=order)
    agreeing("conv_temporal", x, weight, bias)
    assert products == [(frames * 9 * 13 // parts, 24)] * 4 * parts


@pytest.mark.parametrize("size", [(1, 1, 90, 160, 160), (1, 3, 30, 40, 160), (2, 8, 4, 8, 320)])
@pytest.mark.parametrize("kernel", [(3, 3), (3, 1)])
def test_it_takes_little_more_than_its_output(size: tuple[int, ...], kernel: tuple[int, int]) -> None:
    """And the sums of the weights."""
    x, weight = torch.zeros(size), torch.zeros(160, size[-1], *kernel)
    if kernel == (3, 1):
        x = torch.cat([x, x], dim=1)
    memory, some = PeakBytes(), 2**22
    memory.ignore(x, weight)
    with pytest.MonkeyPatch.context() as patch, memory:
        patch.setattr(winograd, "SOME", some)
        processor.conv_spatial(x, weight, None) if kernel == (3, 3) else processor.conv_temporal(x, weight, None)
    sums = weight.nbytes * (4 / 3 if kernel == (3, 1) else 16 / 9)
    assert x[..., :160].numel() * 4 < memory.peak <= x[..., :160].numel() * 4 + sums + 1.1 * some


def test_an_input_that_is_no_row_of_memory_is_read_rightly() -> None:
    x, weight = normal(2, 24, 4, 8, 12).permute(0, 2, 3, 4, 1), normal(40, 24, 3, 3, seed=1)
    assert winograd.fits_spatial(x, weight, stride=1, padding=(1, 1))
    assert relative_error(processor.conv_spatial(x, weight, None), ops.conv_spatial(x, weight, None)) <= 1e-6


def test_doubled_it_is_the_definition(products: list[tuple[int, ...]]) -> None:
    x, weight, bias = normal(1, 2, 7, 9, 24), normal(24, 24, 3, 3, seed=1), normal(24, seed=2)
    got = table(HERE).conv_doubled(x, weight, bias)
    assert relative_error(got, ops.conv_doubled(x, weight, bias)) <= 1e-6
    assert len(products) == 16


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1e-3, 10), (1e4, 0)])
def test_it_is_as_near_to_the_truth_as_a_convolution(scale: float, shift: float) -> None:
    """Also of values that are large beside their differences."""
    x, weight = normal(2, 4, 8, 12, 192) * scale + shift, normal(160, 192, 3, 3, seed=1) / 40
    truth = ops.conv_spatial(x.double(), weight.double(), None)
    plain, ours = (relative_error(one(x, weight, None), truth) for one in (ops.conv_spatial, processor.conv_spatial))
    assert ours <= 2 * plain
    along = weight[..., :1].contiguous()
    truth = ops.conv_temporal(x.double(), along.double(), None)
    plain, ours = (relative_error(one(x, along, None), truth) for one in (ops.conv_temporal, processor.conv_temporal))
    assert ours <= 2 * plain


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "wanted"),
    [
        ((1, 2, 16, 16, 24), (3, 3), 1, (1, 1), True),
        ((1, 2, 16, 15, 24), (3, 3), 1, (1, 1), False),  # odd
        ((1, 2, 15, 16, 24), (3, 3), 1, (1, 1), False),
        ((1, 2, 16, 16, 24), (3, 3), 2, (1, 1), False),
        ((1, 2, 16, 16, 24), (3, 3), 1, (0, 0), False),
        ((1, 2, 16, 16, 24), (3, 1), 1, (1, 1), False),
        ((1, 2, 16, 16, 8), (3, 3), 1, (1, 1), False),  # narrow
        ((1, 2, 8, 8, 24), (3, 3), 1, (1, 1), False),  # small
    ],
)
def test_what_fits(
    size: tuple[int, ...], kernel: tuple[int, int], stride: int, padding: tuple[int, int], wanted: bool
) -> None:
    x, weight = torch.empty(size, device="meta"), torch.empty(40, size[-1], *kernel, device="meta")
    assert winograd.fits_spatial(x, weight, stride=stride, padding=padding) is wanted


@pytest.mark.parametrize(
    ("size", "kernel", "wanted"),
    [
        ((1, 2, 16, 16, 24), 3, True),
        ((1, 3, 16, 16, 24), 3, False),
        ((1, 2, 16, 16, 24), 5, False),
        ((1, 2, 16, 16, 8), 3, False),
        ((1, 2, 8, 8, 24), 3, False),
    ],
)
def test_what_fits_along_frames(size: tuple[int, ...], kernel: int, wanted: bool) -> None:
    x, weight = torch.empty(size, device="meta"), torch.empty(40, size[-1], kernel, 1, device="meta")
    assert winograd.fits_temporal(x, weight) is wanted


def test_gradients_and_other_formats_are_left_to_convolutions(products: list[tuple[int, ...]]) -> None:
    x, weight = normal(1, 2, 16, 16, 24), normal(40, 24, 3, 3, seed=1)
    processor.conv_spatial(x.double(), weight.double(), None)
    with torch.enable_grad():
        processor.conv_spatial(x, weight.requires_grad_(), None).sum().backward()
    assert weight.grad is not None
    weight = weight.detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert processor.conv_spatial(x, weight, None).dtype == torch.bfloat16
    assert products == []
