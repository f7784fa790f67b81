"""Lays an official hub folder's configuration.json over a shipped variant.

Such a file has only `model.model_args` (file names, seed, solver) and `model.model_cfg` (sizes); model_cfg may also
describe the networks under the published keys `UNet`, `auto_encoder` and `embedder`. Knows the published key names and
nothing of files or folders. What it does not know it lists, so that the reader can warn once.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from i2vgen_ms.config.messages import explain
from i2vgen_ms.config.published import (
    HUBS,
    AutoEncoder,
    Embedder,
    ModelCfg,
    PictureUNetArgs,
    TextEmbedder,
    UNetArgs,
    VideoModelArgs,
    unknown_keys,
)
from i2vgen_ms.config.schema import FILE, Configuration
from i2vgen_ms.config.towers import text_of, vision_of
from i2vgen_ms.errors import ConfigurationError

LATENT_SCALE = 8  # pixels of one latent, each way: the autoencoder halves three times
# published key: our option, where both hold the same number; what writes such a file reads these tables backwards
UNET_NAMES = {
    "in_dim": "latent_channels",
    "out_dim": "out_channels",
    "dim": "channels",
    "dim_mult": "multipliers",
    "num_res_blocks": "residual_blocks",
    "head_dim": "head_channels",
    "context_dim": "context_channels",
    "dropout": "dropout",
}
AUTOENCODER_NAMES = {
    "ch": "channels",
    "ch_mult": "multipliers",
    "num_res_blocks": "residual_blocks",
    "in_channels": "in_channels",
    "z_channels": "latent_channels",
}


class ConfigurationWarning(UserWarning):
    """Something in a downloaded configuration.json was ignored."""


def overlay(values: dict[str, Any], base: Configuration) -> tuple[dict[str, Any], list[str]]:
    """`base` with the hub file's values in our layout, and the paths of the keys that mean nothing here."""
    published = HUBS[base.task]
    try:
        hub = published.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(explain(error, published, FILE)) from None
    merged = base.to_json()
    for section, ours in ((hub.model, merged["model"]), (hub.pipeline, merged["pipeline"])):
        if section is not None and section.type not in (None, ours["type"]):
            raise ConfigurationError(
                f"{FILE}: type: {section.type!r} is not the class of the task {base.task!r}; expected {ours['type']!r}"
            )
    arguments, sizes = hub.model.model_args, hub.model.model_cfg
    merged["weights"] = {
        "encoder": arguments.ckpt_clip,
        "st_unet": arguments.ckpt_unet,
        "autoencoder": arguments.ckpt_autoencoder,
    }
    seed = arguments.seed if arguments.seed is not None else hub.seed
    if seed is not None:
        merged["seed"] = seed
    if isinstance(arguments, VideoModelArgs):
        mode = merged["solver_modes"]["fast" if arguments.solver_mode == "fast" else "other"]
        merged["diffusion"] |= {"sampler": dict(mode["sampler"]), "steps": mode["steps"]}
    _sizes(merged, sizes)
    if sizes.UNet is not None:
        _unet(merged["st_unet"], sizes.UNet)
    if sizes.auto_encoder is not None:
        _autoencoder(merged["autoencoder"], sizes.auto_encoder)
    if isinstance(sizes.embedder, TextEmbedder):
        _text_encoder(merged["encoder"], sizes.embedder)
    elif sizes.embedder is not None:
        _encoder(merged["encoder"], sizes.embedder)
    return merged, unknown_keys(hub)


def _sizes(merged: dict[str, Any], sizes: ModelCfg) -> None:
    # published: video-to-video reads the latent sizes and the rate and uses neither: it always makes 1280 x 720 pixels
    # and writes 8 frames a second. They say what the folder's owner wants, so they are followed for both tasks; the
    # official values ask for just what published makes.
    merged["batch_size"] = sizes.batch_size
    merged["output"] |= {
        "fps": sizes.target_fps,
        "num_frames": sizes.max_frames,
        "height": LATENT_SCALE * sizes.latent_hei,
        "width": LATENT_SCALE * sizes.latent_wid,
    }


def _unet(ours: dict[str, Any], theirs: UNetArgs) -> None:
    given = theirs.model_dump(exclude_none=True)
    ours |= {UNET_NAMES[key]: value for key, value in given.items() if key in UNET_NAMES}
    if "num_heads" in theirs.model_fields_set:
        # published: without a number the stem has one head for every 32 channels
        ours["stem_heads"] = theirs.num_heads or max(1, ours["channels"] // 32)
    if theirs.attn_scales is not None:
        ours["attention_levels"] = theirs.levels()
    if isinstance(theirs, PictureUNetArgs):
        width = theirs.y_dim or theirs.input_dim
        if width is not None:
            ours["context"]["in_channels"] = width
        if theirs.num_tokens is not None:
            ours["context"]["tokens"] = theirs.num_tokens


def _autoencoder(ours: dict[str, Any], theirs: AutoEncoder) -> None:
    if theirs.embed_dim is not None:
        ours["embed_channels"] = theirs.embed_dim
    if theirs.ddconfig is not None:
        given = theirs.ddconfig.model_dump(exclude_none=True)
        ours |= {AUTOENCODER_NAMES[key]: value for key, value in given.items() if key in AUTOENCODER_NAMES}


def _encoder(ours: dict[str, Any], theirs: Embedder) -> None:
    if theirs.arch is not None:
        ours |= vision_of(theirs.arch)
    if theirs.vit_resolution is not None:
        side = theirs.vit_resolution[0]
        if theirs.arch is not None and side != ours["vision"]["image_size"]:
            raise ConfigurationError(
                f"{FILE}: model.model_cfg.embedder.vit_resolution: {theirs.vit_resolution} does not fit the "
                f"tower's image size {ours['vision']['image_size']}"
            )
        ours["vision"]["image_size"] = side
    for key, value in (("mean", theirs.vit_mean), ("std", theirs.vit_std)):
        if value is not None:
            ours[key] = value


def _text_encoder(ours: dict[str, Any], theirs: TextEmbedder) -> None:
    if theirs.arch is not None:
        ours |= text_of(theirs.arch)
    if theirs.layer is not None:
        ours["layer"] = theirs.layer
