"""A small OpenCLIP architecture with random weights in a file, as the published encoders want it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import pytest
import torch

from tests.oracle import randomise

EMBED_DIM = 24
VISION: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "width": 64,
    "layers": 3,
    "head_width": 16,
    "mlp_ratio": 4.0,
}
TEXT: dict[str, Any] = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 32,
    "heads": 4,
    "layers": 3,
    "mlp_ratio": 2.0,
}


class Small(NamedTuple):
    arch: str
    path: str
    state: dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder: Path = tmp_path_factory.mktemp("open_clip")
    arch = "i2vgen-small"
    config = folder / f"{arch}.json"
    config.write_text(json.dumps({"embed_dim": EMBED_DIM, "vision_cfg": VISION, "text_cfg": TEXT}))
    open_clip.add_model_config(config)
    model = randomise(open_clip.create_model(arch), seed=5)
    path = folder / "open_clip_pytorch_model.bin"
    torch.save(model.state_dict(), path)
    return Small(arch, str(path), model.state_dict())


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield
