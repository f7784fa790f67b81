"""Chunks of frames: any number of frames, the same result, decoded one after another, within the byte budget."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from tests.autoencoder.peak import PeakBytes
from tests.autoencoder.small import build, normal
from tests.oracle import relative_error


@pytest.mark.parametrize("frames", [1, 3, 15, 20, 33])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_any_number_of_frames_in_any_chunks(ours, frames, dtype, bound):
    """Chunks change no more than the order of additions: nothing in float64."""
    ours, batch = copy.deepcopy(ours).to(dtype), 2 if frames in (3, 20) else 1
    latents = normal(batch, frames, 2, 3, 3).to(dtype)
    whole = ours.decode_all(latents)
    sizes: list[int] = []
    ours.decoder.register_forward_pre_hook(lambda _, arguments: sizes.append(arguments[0].shape[1]))
    encoded = ours.encode(whole)
    for per_chunk in (1, 8):
        sizes.clear()
        ours.chunk_bytes = per_chunk * (ours.decoder.peak_values + 6) * (8 * 12) * dtype.itemsize
        chunks = list(ours.decode(latents))
        assert all(chunk.shape[0] == batch for chunk in chunks)
        assert len(chunks) == math.ceil(frames / max(1, per_chunk // batch))
        assert relative_error(torch.cat(chunks, dim=1), whole) <= bound
        assert max(sizes) <= per_chunk
        again = ours.encode(whole)
        assert again.mean.shape == encoded.mean.shape
        assert relative_error(again.mean, encoded.mean) <= bound
        assert relative_error(again.logvar, encoded.logvar) <= bound


def test_decoding_is_lazy(theirs):
    """The first chunk is there before the second is computed, so a file can be written meanwhile."""
    ours = build(theirs, chunk_bytes=1)
    calls = []
    ours.from_latents.register_forward_pre_hook(lambda _, arguments: calls.append(arguments[0].shape[1]))
    chunks = ours.decode(normal(1, 3, 2, 2, 3))
    assert calls == []
    next(chunks)
    assert calls == [1]
    next(chunks)
    assert calls == [1, 1]


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_the_byte_budget_is_kept_and_used(theirs, way):
    budget = 24 << 20
    ours = build(theirs, chunk_bytes=budget)
    argument = normal(1, 24, 32, 32, 3) if way == "encode" else normal(1, 24, 8, 8, 3)
    memory = PeakBytes()
    memory.ignore(argument, *ours.parameters())
    with memory:
        if way == "encode":
            ours.encode(argument)
        else:
            for _ in ours.decode(argument):
                pass
    assert 0.5 * budget < memory.peak <= budget
