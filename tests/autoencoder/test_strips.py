"""A frame in strips of rows: the same numbers as at once, no seam anywhere, and a part of the memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from i2vgen_ms.autoencoder import strips
from i2vgen_ms.autoencoder.kl import PATIENCE, AutoencoderKL
from i2vgen_ms.runtime.memory import AT_ONCE, LOW_CHUNKS, PLANS
from i2vgen_ms.tensors.layers import GroupNorm
from i2vgen_ms.tensors.ops import Ops
from tests.autoencoder.peak import PeakBytes
from tests.autoencoder.small import NUMBERS, PUBLISHED, build, normal
from tests.oracle import relative_error

GIB = 2**30


@pytest.fixture
def heights(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Is filled with the heights of the strips of everything that is done in strips."""
    seen: list[list[int]] = []
    spans = strips._spans

    def watched(rows: int, most: int) -> Iterator[tuple[int, int]]:
        made = list(spans(rows, most))
        seen.append([last - first for first, last in made])
        return iter(made)

    monkeypatch.setattr(strips, "_spans", watched)
    return seen


def both(network: AutoencoderKL, pixels: Tensor, latents: Tensor) -> tuple[Tensor, ...]:
    posterior = network.encode(pixels)
    return posterior.mean, posterior.logvar, network.decode_all(latents)


@pytest.mark.parametrize(("rows", "columns", "share"), [(1, 1, 0), (2, 3, 0), (8, 1, 0), (33, 2, 0), (33, 2, 0.2)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_strips_give_what_all_at_once_gives(ours, heights, rows, columns, share, dtype, bound):
    """In strips of one row everywhere, and in strips of some rows where that saves most."""
    ours = copy.deepcopy(ours).to(dtype)
    pixels, latents = normal(1, 2, 4 * rows, 4 * columns, 3).to(dtype), normal(1, 2, rows, columns, 3).to(dtype)
    wanted = both(ours, pixels, latents)
    assert heights == []
    limit = max(1, int(share * ours._frame_bytes(ours.decoder, 16 * rows * columns)))
    for got, want in zip(both(ours.within(limit), pixels, latents), wanted, strict=True):
        assert relative_error(got, want) <= bound
        # no row is further off than others, as it would be at a seam
        assert float((got - want).abs().max()) <= 100 * bound * float(want.abs().max())
    if limit == 1:
        assert {height for made in heights for height in made} == {1}
        # each frame: blocks of two convolutions, two steps of size, the end
        assert len(heights) == 2 * ((3 * 2 + 2 + 1) + (6 * 2 + 2 + 1))
    else:
        assert any(len(made) > 1 and max(made) > 1 and made[-1] < made[0] for made in heights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_good_as_at_once(ours, dtype):
    """Both round, at different places; neither is further from the truth."""
    pixels, latents = normal(1, 1, 28, 12, 3), normal(1, 1, 7, 3, 3)
    truth = both(copy.deepcopy(ours).double(), pixels, latents)
    halves = copy.deepcopy(ours).to(dtype)
    at_once, in_strips = both(halves, pixels, latents), both(halves.within(1), pixels, latents)
    for one, other, true in zip(in_strips, at_once, truth, strict=True):
        assert relative_error(one, true) <= 1.25 * relative_error(other, true)


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_statistics_are_the_frames(rows, shifted, dtype):
    """Of values that are small beside their mean, in a frame whose strips differ; in fp32 for half precision too."""
    norm = GroupNorm(16, groups=4, eps=1e-6, per_frame=True, ops=Ops()).requires_grad_(False)
    norm.weight.copy_(normal(16)), norm.bias.copy_(normal(16, seed=1))
    x = (1000 + normal(2, 3, 9, 5, 16) + torch.arange(9.0)[:, None, None]).to(dtype)
    shift = 10 * normal(16, seed=2) if shifted else None
    scale, offset = strips._scales(norm, x, rows, shift=shift)
    wanted = copy.deepcopy(norm).double()(x.double(), shift=None if shift is None else shift.double())
    assert scale.shape == offset.shape == (2, 3, 1, 1, 16)
    assert relative_error(x.double() * scale.double() + offset.double(), wanted) <= 1e-4
    # the scale alone, which does not suffer from the mean: a difference of squares would be off by a tenth
    groups = (x.double() + (0 if shift is None else shift.double())).unflatten(-1, (4, 4))
    deviation = (groups.var((2, 3, 5), correction=0) + 1e-6).sqrt().repeat_interleave(4, -1)
    assert relative_error(scale[:, :, 0, 0], norm.weight.double() / deviation) <= 1e-5


def peak(network: AutoencoderKL, way: str, *argument: Tensor) -> int:
    memory = PeakBytes()
    memory.ignore(*argument, *network.parameters())
    with memory:
        network.encode(*argument) if way == "encode" else next(network.decode(*argument))
    return memory.peak


@pytest.mark.parametrize(("way", "factor"), [("encode", 0.45), ("decode", 0.55)])
@pytest.mark.parametrize("limit", [1 << 18, 5 << 18])
def test_the_peak_is_lower_and_as_estimated(theirs, way, factor, limit):
    ours, size = build(theirs), 64
    coder = ours.encoder if way == "encode" else ours.decoder
    argument = normal(1, 1, size, size, 3) if way == "encode" else normal(1, 1, size // 4, size // 4, 3)
    at_once, small = peak(ours, way, argument), ours.within(limit)
    in_strips, estimate = peak(small, way, argument), small._needed_bytes(coder, size, size)
    assert in_strips <= factor * at_once
    assert 0.75 * estimate <= in_strips <= 1.02 * estimate
    assert small._needed_bytes(coder, size, size) <= small.activation_bytes(size, size)


def test_up_to_four_times_the_budget_a_frame_is_done_at_once(theirs, heights):
    ours = build(theirs)
    latents = normal(1, 2, 4, 4, 3)
    frame = (ours.decoder.peak_values + 6) * 16 * 16 * 4
    wanted = ours.decode_all(latents)
    ours.chunk_bytes = (frame + 3) // 4
    assert relative_error(ours.decode_all(latents), wanted) <= 1e-5
    assert heights == []
    assert ours.activation_bytes(16, 16) == frame
    ours.chunk_bytes = frame // 4 - 1
    ours.decode_all(latents)
    assert heights
    assert ours.activation_bytes(16, 16) < frame


def test_the_plan_reckons_with_as_many_chunks():
    assert AT_ONCE == PATIENCE


def test_gradients_are_those_of_all_at_once(theirs, heights):
    ours, pixels = build(theirs, chunk_bytes=1), normal(1, 1, 16, 16, 3)
    with torch.enable_grad():
        pixels.requires_grad_()
        decoded = ours.decode_all(ours.encode(pixels).mode())
        F.mse_loss(decoded, pixels).backward()
    assert pixels.grad is not None
    assert bool(pixels.grad.abs().sum() > 0)
    assert heights == []


def test_within_is_the_same_network(theirs):
    ours = build(theirs, chunk_bytes=1000)
    small = ours.within(10)
    assert (ours.chunk_bytes, small.chunk_bytes, ours.within(10**6).chunk_bytes) == (1000, 10, 1000)
    assert all(one is other for one, other in zip(small.parameters(), ours.parameters(), strict=True))
    assert PLANS["low"].within(build(theirs)).chunk_bytes < NUMBERS["chunk_bytes"]
    assert all(PLANS[mode].within(ours) is ours for mode in ("fast", "balanced"))
    assert PLANS["low"].within(norm := torch.nn.Linear(1, 1)) is norm  # a network that works in no chunks


@pytest.mark.parametrize(
    ("dtype", "chunk", "most"),
    [
        (torch.float16, LOW_CHUNKS[0], 0.75 * GIB),
        (torch.float16, LOW_CHUNKS[1], 1.6 * GIB),
        (torch.float32, LOW_CHUNKS[1], 1.45 * GIB),
    ],
)
def test_the_published_size_fits_a_small_device(dtype, chunk, most):
    """A frame of 1280x720 in `low`, in strips or in fp16 at once, leaves of 2.5 GiB what the libraries need."""
    with torch.device("meta"):
        network = AutoencoderKL(**PUBLISHED, ops=Ops()).to(dtype)
    assert network.activation_bytes(720, 1280) > 1.45 * GIB
    need = network.within(chunk).activation_bytes(720, 1280)
    assert need <= most
    weights = sum(tensor.nbytes for tensor in network.parameters())
    assert need + weights <= 2 * GIB
