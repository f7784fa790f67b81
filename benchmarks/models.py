"""Model folders for measurements: random weights none of which is zero, of full size or tiny, in the published formats.

Given a folder. What is in it serves both sides: ours loads it as any model, the published classes get the same tensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2vgen_ms.config import reader
from i2vgen_ms.config.schema import FILE, Configuration
from i2vgen_ms.weights import architecture

TASKS = {1: "image-to-video", 2: "video-to-video"}
SIZES = ("full", "small")
# The published networks have a context of 1024 somewhere, whatever their arguments say.
SMALL: dict[str, dict[str, Any]] = {
    "st_unet": {"channels": 32, "multipliers": [1, 1, 1, 1], "residual_blocks": 1, "head_channels": 16},
    "autoencoder": {"channels": 32, "multipliers": [1, 1, 1, 1], "residual_blocks": 1},
    "output": {"width": 128, "height": 80, "num_frames": 2},
}
SMALL_VISION = {"image_size": 224, "patch_size": 32, "width": 64, "layers": 2, "head_width": 32, "mlp_ratio": 2.0}
SMALL_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 2, "mlp_ratio": 1.0}


def configuration(stage: int, size: str) -> Configuration:
    """The configuration of a stage: the shipped one, or the shipped one with tiny networks and pictures."""
    values = reader.shipped(TASKS[stage]).to_json()
    if size == "small":
        for section, changes in SMALL.items():
            values[section] |= changes
        values["encoder"]["vision" if stage == 1 else "text"] = SMALL_VISION if stage == 1 else SMALL_TEXT
    return Configuration.from_json(values)


def make(folder: Path, stage: int, size: str, device: torch.device, *, seed: int = 0) -> Path:
    """The model folder of a stage below `folder`, made unless it is there; its numbers are drawn on the device."""
    home = folder / f"{TASKS[stage]}-{size}"
    if (home / "complete").exists():
        return home
    home.mkdir(parents=True, exist_ok=True)
    chosen = configuration(stage, size)
    (home / FILE).write_text(json.dumps(chosen.to_json()), encoding="utf-8")
    generator = torch.Generator(device).manual_seed(seed)
    for name in architecture.NETWORKS:
        built = architecture.build(chosen, name)
        state = {}
        for ours, tensor in built.network.state_dict().items():
            values = values_of(ours, tensor.shape, generator).half().cpu()
            state[built.layout.to_published(ours)] = built.layout.to_published_shape(ours, values).contiguous()
        content: Any = state if name == "encoder" else {"state_dict": state}
        torch.save(content, home / getattr(chosen.weights, name))
    (home / "complete").touch()
    return home


def values_of(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Numbers under which activations keep their size from layer to layer; none of a layer's is left at zero."""
    noise = torch.randn(shape, generator=generator, device=generator.device)
    if len(shape) > 1:
        return noise / shape[1:].numel() ** 0.5
    return 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise


def state_of(home: Path, name: str) -> dict[str, Tensor]:
    """The tensors of the network `name` of a model folder, mapped from its file, under the published class's names."""
    path = home / getattr(reader.read(home).weights, name)
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    state: dict[str, Tensor] = content if name == "encoder" else content["state_dict"]
    return {key.removeprefix("first_stage_model."): tensor for key, tensor in state.items()}
