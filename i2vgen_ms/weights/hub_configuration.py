"""The configuration.json that an official hub folder would have for a configuration of ours.

Given a configuration and the shipped one of its task. Architecture that differs from the shipped one is described
under the published keys `UNet`, `auto_encoder` and `embedder`. It is the inverse of the overlay that reads such a
file, and knows no files itself. What the published layout has no key for (sampler, steps, ...) is left out.
"""

from __future__ import annotations

from typing import Any

from i2vgen_ms.config.overlay import AUTOENCODER_NAMES, LATENT_SCALE, UNET_NAMES
from i2vgen_ms.config.schema import Configuration, PartSpec, VideoToVideoConfiguration

# the overlay reads these two by rules of their own
_UNET = {**UNET_NAMES, "num_heads": "stem_heads"}
_AUTOENCODER = {**AUTOENCODER_NAMES, "out_ch": "in_channels"}


def hub_configuration(configuration: Configuration, shipped: Configuration) -> dict[str, Any]:
    """The object of an official configuration.json. `shipped` is the variant that such a folder overlays."""
    output = configuration.output
    sizes: dict[str, Any] = {
        "batch_size": configuration.batch_size,
        # the published layout has only numbers; that a clip's own rate is kept is lost in it
        "target_fps": shipped.output.fps if output.fps == "source" else output.fps,
        "max_frames": output.num_frames,
        "latent_hei": output.height // LATENT_SCALE,
        "latent_wid": output.width // LATENT_SCALE,
    }
    described = {
        "UNet": (_unet, "st_unet"),
        "auto_encoder": (_autoencoder, "autoencoder"),
        "embedder": (_embedder, "encoder"),
    }
    for key, (describe, part) in described.items():
        ours: PartSpec = getattr(configuration, part)
        if ours != getattr(shipped, part):
            sizes[key] = describe(ours.options)
    weights = configuration.weights
    return {
        "framework": configuration.framework,
        "task": configuration.task,
        "model": {
            "type": configuration.model.type,
            "model_args": {
                "ckpt_clip": weights.encoder,
                "ckpt_unet": weights.st_unet,
                "ckpt_autoencoder": weights.autoencoder,
                "seed": configuration.seed,
                **_solver(configuration),
            },
            "model_cfg": sizes,
        },
        "pipeline": {"type": configuration.pipeline.type},
    }


def _solver(configuration: Configuration) -> dict[str, str]:
    """The published solver_mode of a video-to-video configuration; `fast` where its sampler is of neither mode."""
    if not isinstance(configuration, VideoToVideoConfiguration):
        return {}
    used, other = configuration.diffusion, configuration.solver_modes.other
    return {"solver_mode": "other" if (used.sampler, used.steps) == (other.sampler, other.steps) else "fast"}


def _unet(options: dict[str, Any]) -> dict[str, Any]:
    described = {theirs: options[ours] for theirs, ours in _UNET.items() if ours in options}
    if "attention_levels" in options:
        described["attn_scales"] = [0.5**level for level in options["attention_levels"]]
    context = options.get("context", {})
    described |= {
        theirs: context[ours]
        for theirs, ours in (("y_dim", "in_channels"), ("num_tokens", "tokens"))
        if ours in context
    }
    return described


def _autoencoder(options: dict[str, Any]) -> dict[str, Any]:
    halves = {theirs: options[ours] for theirs, ours in _AUTOENCODER.items() if ours in options}
    return {"ddconfig": halves, "embed_dim": options["embed_channels"]}


def _embedder(options: dict[str, Any]) -> dict[str, Any]:
    activation = {"quick_gelu": True} if options.get("activation") == "quick_gelu" else {}
    if "text" in options:
        # embed_dim is the width of the projection, which the text encoder does not have
        arch = {"embed_dim": options["text"]["width"], "text_cfg": dict(options["text"]), **activation}
        return {"arch": arch, "layer": options["layer"]}
    arch = {"embed_dim": options["embed_dim"], "vision_cfg": dict(options["vision"]), **activation}
    side = options["vision"]["image_size"]
    return {"arch": arch, "vit_resolution": [side, side], "vit_mean": options["mean"], "vit_std": options["std"]}
