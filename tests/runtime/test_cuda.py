"""What only a CUDA device shows: real copies beside computing, and its limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms.pipelines import load
from i2vgen_ms.random_model import make_random_model
from i2vgen_ms.runtime import chunked, residency
from i2vgen_ms.tensors import ops

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


@pytest.mark.parametrize("per_frame", [True, False])
def test_group_norm_in_parts_is_bit_equal(monkeypatch: pytest.MonkeyPatch, per_frame: bool) -> None:
    monkeypatch.setattr(chunked, "LIMIT", 2**20)
    x = torch.randn(1, 8, 24, 40, 320, device=DEVICE, dtype=torch.float16)
    weight, bias = torch.randn(2, 320, device=DEVICE, dtype=torch.float16)
    options: dict[str, Any] = {"groups": 32, "eps": 1e-5, "per_frame": per_frame, "silu": True}
    assert torch.equal(chunked.group_norm(x, weight, bias, **options), ops.group_norm(x, weight, bias, **options))


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
