"""Small networks of the family, ours beside the published class that they have to agree with."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from i2vgen_ms.st_unet.context import ImageVectorContext, TextAndImageContext, TextContext
from i2vgen_ms.st_unet.network import SpatioTemporalUNet
from i2vgen_ms.st_unet.temporal import TemporalTransformer
from i2vgen_ms.tensors.ops import Ops
from i2vgen_ms.weights.names import StUNetLayout
from tests.oracle import published, randomise

SMALL: dict[str, Any] = {
    "latent_channels": 4,
    "extra_channels": 0,
    "out_channels": 4,
    "channels": 32,
    "multipliers": [1, 2, 4, 4],
    "residual_blocks": 2,
    "head_channels": 16,
    "stem_heads": 8,
    "attention_levels": [0, 1, 2],
    # published: the decoders' context is 1024 wide whatever the arguments say.
    "context_channels": 1024,
    "norm_groups": 32,
    "dropout": 0.1,
    "vertical_padding": [1, 1],
    "fps_embedding": False,
}
PUBLISHED_SMALL: dict[str, Any] = {
    "in_dim": 4,
    "dim": 32,
    "y_dim": 1024,
    "context_dim": 1024,
    "out_dim": 4,
    "dim_mult": [1, 2, 4, 4],
    "num_heads": 8,
    "head_dim": 16,
    "num_res_blocks": 2,
    "attn_scales": [1, 0.5, 0.25],
}
ROTARY: dict[str, Any] = {"rotary_channels": 4, "buckets": 32, "max_distance": 32, "repeats": 1}


def temporal_choice(block: type[nn.Module] = TemporalTransformer, **options: Any) -> Any:
    """What the network takes as `temporal`: a block class with its options."""
    return SimpleNamespace(
        fixed_heads=getattr(block, "fixed_heads", False),
        block=partial(block, **options),
        shared_part=partial(block.shared_part, **options),  # type: ignore[attr-defined]
    )


CONTEXTS: dict[str, Any] = {
    "text": TextContext,
    "image-vector": partial(ImageVectorContext, in_channels=1024, tokens=4),
    "text-and-image": partial(TextAndImageContext, in_channels=1024, hidden_channels=1024, tokens=1),
}


def ours(
    context: str, *, temporal: Any = None, ops: Ops | None = None, device: str = "meta", **changes: Any
) -> SpatioTemporalUNet:
    """Our small network, on the meta device unless told."""
    with torch.device(device):
        return SpatioTemporalUNet(
            **SMALL | changes,
            context=CONTEXTS[context],
            temporal=temporal or temporal_choice(),
            ops=ops or Ops(),
        ).eval()


def small_layout(context: str, *, rotary_repeats: int = 0) -> StUNetLayout:
    return StUNetLayout(
        levels=4, residual_blocks=2, attention_levels=[0, 1, 2], context=context, rotary_repeats=rotary_repeats
    )


def translate(state: dict[str, Tensor], layout: StUNetLayout) -> dict[str, Tensor]:
    """A published state dict under our names and shapes."""
    named = ((layout.to_ours(name), tensor) for name, tensor in state.items())
    return {name: layout.to_our_shape(name, tensor) for name, tensor in named if name is not None}


def with_weights_of(theirs: nn.Module, network: SpatioTemporalUNet, layout: StUNetLayout) -> SpatioTemporalUNet:
    network.load_state_dict(translate(theirs.state_dict(), layout), strict=True, assign=True)
    return network


def image_to_video(seed: int = 0) -> nn.Module:
    unet = published("image_to_video.modules.unet_i2v").Img2VidSDUNet
    return randomise(unet(**PUBLISHED_SMALL, num_tokens=4, input_dim=1024), seed)


def latents(
    batch: int = 2, channels: int = 4, frames: int = 3, height: int = 8, width: int = 16, seed: int = 1
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, frames, height, width, generator=generator)
