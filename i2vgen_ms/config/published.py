"""The published key names of an official hub folder's configuration.json, with their types and ranges.

Keys that only training read, or that the published code stored and never used, are listed so that they cause no
warning; a value that would ask for another network than the published one computes is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from i2vgen_ms.config.sections import BatchSize, FileName, Fps, Frames, Seed

Channels = Annotated[int, Field(ge=1, le=65536)]
Multipliers = Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=16)]
Blocks = Annotated[int, Field(ge=1, le=32)]
Latents = Annotated[int, Field(ge=1, le=2048)]
Triple = Annotated[list[float], Field(min_length=3, max_length=3)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Published(BaseModel):
    """Base of the published sections: strict about what it knows, collects what it does not."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)


class ModelArgs(Published):
    """File names and the seed."""

    ckpt_clip: FileName
    ckpt_unet: FileName
    ckpt_autoencoder: FileName
    seed: Seed = None  # type: ignore[assignment]  # absent is allowed, null is not


class VideoModelArgs(ModelArgs):
    """Those of video-to-video: `fast` is one sampler, and published: anything else, misspelt or null, the other."""

    solver_mode: Any = "fast"


class UNetArgs(Published):
    """Constructor arguments of the published networks, as far as both have them."""

    type: str | None = None
    in_dim: Channels | None = None
    dim: Channels | None = None
    context_dim: Channels | None = None
    out_dim: Channels | None = None
    dim_mult: Multipliers | None = None
    num_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    head_dim: Channels | None = None
    num_res_blocks: Blocks | None = None
    attn_scales: Annotated[list[float], Field(max_length=16)] | None = None
    dropout: Fraction | None = None
    temporal_attention: bool = True
    use_image_dataset: bool = False
    # stored or only used in training:
    default_fps: Any = None
    temporal_attn_times: Any = None
    use_scale_shift_norm: Any = None
    use_checkpoint: Any = None
    use_sim_mask: Any = None
    training: Any = None
    inpainting: Any = None

    def levels(self) -> list[int]:
        """`attn_scales` 1, 1/2, 1/4 as resolution levels 0, 1, 2."""
        return [round(-math.log2(scale)) for scale in self.attn_scales or []]

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if not self.temporal_attention:
            _refuse("temporal_attention", "false describes a network without time, which is not of this family")
        if self.use_image_dataset:
            _refuse("use_image_dataset", "true switches time off, which is a training setting")
        for scale in self.attn_scales or []:
            if not 0 < scale <= 1 or 2.0 ** round(math.log2(scale)) != scale:
                _refuse("attn_scales", f"1, 0.5, 0.25, ... are expected, got {scale}")
        return self


class PictureUNetArgs(UNetArgs):
    """Img2VidSDUNet, which is told a picture's vector, as `num_tokens` of them, and the rate."""

    y_dim: Channels | None = None
    input_dim: Channels | None = None
    num_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    use_fps_condition: Any = None  # stored, never used

    @model_validator(mode="after")
    def _one_vector(self) -> Self:
        if None not in (self.y_dim, self.input_dim) and self.y_dim != self.input_dim:
            _refuse("input_dim", f"{self.input_dim} does not fit y_dim = {self.y_dim}; they describe the same size")
        return self


class VideoUNetArgs(UNetArgs):
    """Vid2VidSDUNet, which is told the vectors of a text, of width `context_dim`, and nothing else."""

    use_fps_condition: bool = False
    y_dim: Any = None  # stored, never used
    # published: these stand in its settings, copied from image-to-video; its constructor does not have them.
    input_dim: Any = None
    num_tokens: Any = None

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if self.use_fps_condition:
            _refuse("use_fps_condition", "true describes a network that is told the rate, which this task does not")
        return self


class DDConfig(Published):
    """Constructor arguments of the published autoencoder's two halves."""

    ch: Channels | None = None
    ch_mult: Multipliers | None = None
    num_res_blocks: Blocks | None = None
    in_channels: Channels | None = None
    out_ch: Channels | None = None
    z_channels: Channels | None = None
    double_z: bool = True
    attn_resolutions: list[int] = Field(default_factory=list)
    resolution: Any = None  # stored, never used
    dropout: Any = None  # only used in training

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if not self.double_z:
            _refuse("double_z", "false describes an autoencoder without a posterior, which is not of this family")
        if self.attn_resolutions:
            _refuse("attn_resolutions", f"[] is expected, got {self.attn_resolutions}")
        if self.out_ch is not None and self.out_ch != (self.in_channels or 3):
            _refuse("out_ch", f"{self.out_ch} does not fit in_channels = {self.in_channels or 3}")
        return self


class AutoEncoder(Published):
    """The published AutoencoderKL; its `pretrained` is overwritten by ckpt_autoencoder there too."""

    type: str | None = None
    ddconfig: DDConfig | None = None
    embed_dim: Channels | None = None
    pretrained: Any = None


class Embedder(Published):
    """The published image encoder; `arch` is a name that open_clip knows, or that architecture's object itself."""

    type: str | None = None
    arch: str | dict[str, Any] | None = None
    vit_resolution: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(min_length=2, max_length=2)] | None = (
        None
    )
    vit_mean: Triple | None = None
    vit_std: Triple | None = None
    # stored, or of its text methods, which nothing calls:
    layer: Any = None
    pretrained: Any = None
    max_length: Any = None
    freeze: Any = None

    @model_validator(mode="after")
    def _square(self) -> Self:
        if self.vit_resolution is not None and self.vit_resolution[0] != self.vit_resolution[1]:
            _refuse("vit_resolution", f"a square is expected, got {self.vit_resolution}")
        return self


class TextEmbedder(Published):
    """The published FrozenOpenCLIPEmbedder, a text encoder; `arch` as for Embedder.

    published: the model reads only `pretrained`, and always builds ViT-H-14. Here it describes other towers too.
    """

    type: str | None = None
    arch: str | dict[str, Any] | None = None
    layer: Literal["penultimate", "last"] | None = None
    # stored, or of the pictures that it never sees:
    pretrained: Any = None
    max_length: Any = None
    freeze: Any = None
    vit_resolution: Any = None
    vit_mean: Any = None
    vit_std: Any = None


class ModelCfg(Published):
    """Sizes of the video; latent_hei and latent_wid in latents of 8 x 8 pixels."""

    batch_size: BatchSize
    target_fps: Fps
    max_frames: Frames
    latent_hei: Latents
    latent_wid: Latents
    auto_encoder: AutoEncoder | None = None


class PictureModelCfg(ModelCfg):
    """The `model_cfg` section of image-to-video."""

    UNet: PictureUNetArgs | None = None
    embedder: Embedder | None = None


class VideoModelCfg(ModelCfg):
    """The `model_cfg` section of video-to-video."""

    UNet: VideoUNetArgs | None = None
    embedder: TextEmbedder | None = None


class PictureModel(Published):
    """The `model` section of image-to-video."""

    type: str | None = None
    model_args: ModelArgs
    model_cfg: PictureModelCfg


class VideoModel(Published):
    """The `model` section of video-to-video."""

    type: str | None = None
    model_args: VideoModelArgs
    model_cfg: VideoModelCfg


class Pipeline(Published):
    """The `pipeline` section."""

    type: str | None = None


class Hub(Published):
    """A whole official configuration.json; each task's class below has its own `model` section."""

    framework: str | None = None
    task: str
    pipeline: Pipeline | None = None
    seed: Seed = None  # type: ignore[assignment]


class PictureHub(Hub):
    """That of image-to-video."""

    model: PictureModel


class VideoHub(Hub):
    """That of video-to-video."""

    model: VideoModel


HUBS: dict[str, type[PictureHub] | type[VideoHub]] = {"image-to-video": PictureHub, "video-to-video": VideoHub}


def unknown_keys(hub: Hub) -> list[str]:
    """Dotted paths of all keys that no section knows."""
    return list(_unknown(hub, ""))


def _unknown(section: Published, prefix: str) -> Iterator[str]:
    for key in section.model_extra or {}:
        yield prefix + key
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Published):
            yield from _unknown(value, f"{prefix}{name}.")


def _refuse(key: str, message: str) -> None:
    raise PydanticCustomError("option", "{message}", {"message": message, "path": (key,)})
