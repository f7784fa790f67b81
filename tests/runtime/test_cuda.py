"""What only a CUDA device shows: real copies beside computing, and its limits."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms.autoencoder.kl import AutoencoderKL
from i2vgen_ms.config import reader
from i2vgen_ms.pipelines import load
from i2vgen_ms.random_model import make_random_model
from i2vgen_ms.runtime import beforehand, chunked, operations, residency
from i2vgen_ms.runtime.memory import LOW_CHUNKS
from i2vgen_ms.tensors import ops
from tests.autoencoder.small import PUBLISHED
from tests.oracle import randomise, relative_error

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CALL: dict[str, Any] = {"steps": 3, "seed": 3, "output_type": "pt", "progress": False}
DEVICE = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


@pytest.fixture
def share() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("loaded", ["fast", "low"])
def test_every_mode_gives_the_same_bits(folder: Path, picture: np.ndarray, loaded: str) -> None:
    pipe = load(folder, device="cuda:0", memory=loaded)
    wanted = pipe(picture, guidance_branches="sequential", memory="fast", **CALL).tensor
    for mode in ("balanced", "low", "low", "fast", "balanced"):
        assert torch.equal(pipe(picture, guidance_branches="sequential", memory=mode, **CALL).tensor, wanted)


def test_low_leaves_the_device_as_it_was(folder: Path, picture: np.ndarray) -> None:
    before = torch.cuda.memory_allocated()
    pipe = load(folder, device="cuda:0", memory="low")
    pipe(picture, **CALL)
    assert torch.cuda.memory_allocated() == before


def test_an_idle_pipeline_gives_way(folder: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (load(folder, device="cuda:0", memory="fast") for _ in range(2))
    wanted = first(picture, **CALL).tensor
    free = residency.free_bytes(DEVICE)
    monkeypatch.setattr(residency, "free_bytes", lambda device: 0)
    assert torch.equal(second(picture, **CALL).tensor, wanted)
    assert not any(one.on_device for one in first.networks.residents.values())
    monkeypatch.undo()
    assert residency.free_bytes(DEVICE) > free
    assert torch.equal(first(picture, **CALL).tensor, wanted)


def test_the_share_of_the_process_is_what_is_free(share: None) -> None:
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    assert 0 < residency.free_bytes(DEVICE) <= 2**30


@pytest.mark.parametrize("task", ["image-to-video", "video-to-video"])
def test_every_kernel_is_compiled_beforehand(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beforehand, "_compiled", set())
    told = reader.shipped(task), {"st_unet": "float16", "autoencoder": "float16"}, DEVICE
    assert beforehand.compile_kernels(*told) == len(beforehand.variants(*told)) > 20


@pytest.mark.parametrize("per_frame", [True, False])
def test_group_norm_in_parts_is_bit_equal(monkeypatch: pytest.MonkeyPatch, per_frame: bool) -> None:
    monkeypatch.setattr(chunked, "LIMIT", 2**20)
    x = torch.randn(1, 8, 24, 40, 320, device=DEVICE, dtype=torch.float16)
    weight, bias = torch.randn(2, 320, device=DEVICE, dtype=torch.float16)
    options: dict[str, Any] = {"groups": 32, "eps": 1e-5, "per_frame": per_frame, "silu": True}
    assert torch.equal(chunked.group_norm(x, weight, bias, **options), ops.group_norm(x, weight, bias, **options))


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderKL:
    """One of the published size, with the operations of the device, on the host and in fp32."""
    return randomise(AutoencoderKL(**PUBLISHED, ops=operations.table(DEVICE))).requires_grad_(False)  # type: ignore[return-value]


def there_and_back(network: AutoencoderKL, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        pixels = network.decode_all(latents)
        return pixels.double().cpu(), network.encode(pixels).mean.double().cpu()


def on_device(network: AutoencoderKL, dtype: torch.dtype) -> AutoencoderKL:
    return copy.deepcopy(network).to(DEVICE, dtype, memory_format=torch.channels_last)


def test_strips_are_all_at_once(autoencoder: AutoencoderKL) -> None:
    latents = torch.randn(1, 2, 24, 40, 4, generator=torch.Generator().manual_seed(0))
    single, half = (on_device(autoencoder, dtype) for dtype in (torch.float32, torch.float16))
    wanted = there_and_back(single, latents)
    for limit in (1, 8 * 2**20):
        for got, want in zip(there_and_back(single.within(limit), latents), wanted, strict=True):
            assert relative_error(got, want) <= 1e-5
        # In fp16 strips and all at once round at different places, and are equally far from the truth.
        errors = [
            [relative_error(got, want) for got, want in zip(there_and_back(one, latents), wanted, strict=True)]
            for one in (half.within(limit), half)
        ]
        assert all(ours <= 1.25 * plain for ours, plain in zip(*errors, strict=True))


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_strips_take_less_memory(autoencoder: AutoencoderKL, way: str) -> None:
    network = on_device(autoencoder, torch.float16)
    shape = (1, 1, 720, 1280, 3) if way == "encode" else (1, 1, 90, 160, 4)
    given = torch.randn(shape, device=DEVICE)

    def peak(network: AutoencoderKL) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.no_grad():
            network.encode(given) if way == "encode" else network.decode_all(given)
        return torch.cuda.max_memory_allocated() - before

    in_strips, at_once = peak(network.within(256 * 2**20)), peak(network)
    assert in_strips <= 0.75 * at_once
    low = peak(network.within(LOW_CHUNKS[1]))  # a frame at once
    assert low + sum(tensor.nbytes for tensor in network.parameters()) <= 2 * 2**30


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("mode", ["fast", "balanced", "low"])
def test_each_stage_on_its_own_device(
    folder: Path, picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory, mode: str
) -> None:
    second = make_random_model(tmp_path_factory.mktemp("second"), {"max_frames": 8}, task="video-to-video")
    videos = []
    for device in ("cuda:0", "cuda:1"):
        pipes = load(folder, device="cuda:0", memory=mode), load(second, device=device, memory=mode)
        small = pipes[0](picture, **CALL).tensor
        videos.append(pipes[1](small, **CALL).tensor)
    assert torch.isfinite(videos[0]).all()
    assert torch.equal(*videos)
