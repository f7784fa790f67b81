"""A small autoencoder, published and ours, with the same random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from i2vgen_ms.autoencoder.kl import AutoencoderKL
from i2vgen_ms.tensors.ops import Ops
from i2vgen_ms.weights.names_autoencoder import AutoencoderLayout
from tests.oracle import published, randomise

NUMBERS: dict[str, Any] = {
    "channels": 64,
    "multipliers": [1, 2, 2],
    "residual_blocks": 1,
    "in_channels": 3,
    "latent_channels": 4,
    "embed_channels": 3,
    "norm_groups": 32,
    "scale_factor": 0.18215,
    "chunk_bytes": 1 << 30,
}
PUBLISHED: dict[str, Any] = NUMBERS | {
    "channels": 128,
    "multipliers": [1, 2, 4, 4],
    "residual_blocks": 2,
    "embed_channels": 4,
}


def build_published(seed: int = 0) -> torch.nn.Module:
    module = published("image_to_video.modules.autoencoder")
    ddconfig = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 64,
        "ch_mult": [1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return randomise(module.AutoencoderKL(ddconfig=ddconfig, embed_dim=3), seed)


def translated(state: dict[str, Tensor], prefix: str = "first_stage_model.") -> dict[str, Tensor]:
    layout = AutoencoderLayout()
    result = {}
    for name, tensor in state.items():
        ours = layout.to_ours(prefix + name)
        assert ours is not None
        result[ours] = layout.to_our_shape(ours, tensor)
    return result


def build(theirs: torch.nn.Module, ops: Ops | None = None, **changes: Any) -> AutoencoderKL:
    with torch.device("meta"):
        ours = AutoencoderKL(**{**NUMBERS, **changes}, ops=ops or Ops())
    ours.load_state_dict(translated(theirs.state_dict()), strict=True, assign=True)
    return ours.eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def frames_first(x: Tensor) -> Tensor:
    return x.flatten(0, 1).permute(0, 3, 1, 2)
