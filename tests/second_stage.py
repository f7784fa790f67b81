"""A small random model of video-to-video in the published file formats, quickly made: its text tower is narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from i2vgen_ms.random_model import make_random_model

TOWER = {"embed_dim": 8, "text_cfg": {"width": 32, "heads": 2, "layers": 2}}
NETWORK = {"dim": 32, "num_res_blocks": 1, "head_dim": 16, "num_heads": 2, "context_dim": 32, "attn_scales": [1.0]}


def make(folder: Path, *, levels: int = 2, seed: int = 0, **model_cfg: Any) -> Path:
    """Fills the folder. A network of 4 `levels` takes the sizes that the published one takes, and no others."""
    network = {**NETWORK, "dim_mult": [1] * levels}
    changes = {"UNet": network, "embedder": {"arch": TOWER}, **model_cfg}
    return make_random_model(folder, changes, seed=seed, task="video-to-video")
