"""Adapters are part of a loaded model: added once, whatever dtype the network is read in later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from i2vgen_ms.cli.main import main
from i2vgen_ms.errors import ArgumentError, MismatchedCheckpointError
from i2vgen_ms.pipelines import ImageToVideo, load
from tests.oracle import relative_error

CALL: dict[str, Any] = {"steps": 2, "seed": 3, "output_type": "pt", "progress": False}
LAYER, RANK, ALPHA = "middle_in.spatial.block.attention1.to_q", 2, 6.0


def adapter(folder: Path, pipe: ImageToVideo, layer: str = LAYER) -> Path:
    """A random adapter of one layer, in peft's format."""
    rows, columns = pipe.networks.st_unet.get_submodule(LAYER).weight.shape
    generator = torch.Generator().manual_seed(0)
    pair = {"A": torch.randn(RANK, columns, generator=generator), "B": torch.randn(rows, RANK, generator=generator)}
    folder.mkdir(exist_ok=True)
    save_file(
        {f"base_model.model.{layer}.lora_{side}.weight": tensor for side, tensor in pair.items()},
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}))
    return folder


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, pipe: ImageToVideo) -> Path:
    return adapter(tmp_path_factory.mktemp("adapters") / "one", pipe)


def test_the_weights_are_changed_by_the_product(folder: Path, pipe: ImageToVideo, lora: Path) -> None:
    from safetensors.torch import load_file

    pair = {name[-8]: tensor for name, tensor in load_file(lora / "adapter_model.safetensors").items()}
    for scale in (1.0, -0.5):
        changed = load(folder, device="cpu", lora=lora, lora_scale=scale).networks.st_unet
        for name, weight in pipe.networks.st_unet.named_parameters():
            added = scale * ALPHA / RANK * (pair["B"] @ pair["A"]) if name == f"{LAYER}.weight" else 0
            assert torch.allclose(changed.get_parameter(name), weight + added, rtol=1e-5, atol=1e-5)


def test_it_changes_the_video_and_stays_in_another_dtype(
    folder: Path, pipe: ImageToVideo, picture: np.ndarray, lora: Path
) -> None:
    changed, plain = load(folder, device="cpu", lora=lora), pipe(picture, **CALL).tensor
    video = changed(picture, **CALL).tensor
    assert relative_error(video, plain) > 1e-3
    rough = changed(picture, dtype="bfloat16", **CALL).tensor
    assert relative_error(rough, video) < relative_error(rough, plain)
    assert torch.equal(changed(picture, **CALL).tensor, video)
    assert torch.equal(pipe(picture, **CALL).tensor, plain)


def test_nothing_of_it_is_the_plain_model(folder: Path, pipe: ImageToVideo, picture: np.ndarray, lora: Path) -> None:
    none = load(folder, device="cpu", lora=lora, lora_scale=0.0)
    assert torch.equal(none(picture, **CALL).tensor, pipe(picture, **CALL).tensor)


def test_what_does_not_fit_is_refused(folder: Path, pipe: ImageToVideo, tmp_path: Path) -> None:
    with pytest.raises(MismatchedCheckpointError, match="no such layer"):
        load(folder, device="cpu", lora=adapter(tmp_path / "a", pipe, layer="middle_in.nothing"))
    with pytest.raises(ArgumentError, match="lora_scale"):
        load(folder, device="cpu", lora=adapter(tmp_path / "b", pipe), lora_scale=float("nan"))


def test_the_command_takes_it_too(folder: Path, picture: np.ndarray, lora: Path, tmp_path: Path) -> None:
    import imageio.v3

    imageio.v3.imwrite(tmp_path / "picture.png", picture)
    common = ["image-to-video", str(tmp_path / "picture.png"), "-m", str(folder), "--device", "cpu", "--steps", "2"]
    for name, options in {
        "plain": [],
        "zero": ["--lora", str(lora), "--lora-scale", "0"],
        "one": ["--lora", str(lora)],
    }.items():
        assert main([*common, *options, "-o", str(tmp_path / f"{name}.mp4")]) == 0
    plain, zero, one = ((tmp_path / f"{name}.mp4").read_bytes() for name in ("plain", "zero", "one"))
    assert plain == zero
    assert plain != one
