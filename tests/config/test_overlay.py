"""Official hub folders: what they change, what they may describe, what is ignored, what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from i2vgen_ms.config import reader
from i2vgen_ms.config.overlay import ConfigurationWarning
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.errors import ConfigurationError
from tests.config.folders import HUB, change, hub, write


def read(folder: Path, values: Any) -> Configuration:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return reader.read(write(folder, values))


def test_the_official_folder_is_the_shipped_variant(tmp_path: Path) -> None:
    assert read(tmp_path, HUB) == reader.shipped("image-to-video")


def test_every_official_value_lands_where_it_belongs(tmp_path: Path) -> None:
    values = hub(batch_size=2, target_fps=12, max_frames=16, latent_hei=16, latent_wid=24)
    values["model"]["model_args"] = {
        "ckpt_clip": "a.bin",
        "ckpt_unet": "b.pth",
        "ckpt_autoencoder": "c.ckpt",
        "seed": 7,
    }
    configuration = read(tmp_path, values)
    assert configuration.batch_size == 2
    assert configuration.seed == 7
    output = configuration.output
    assert (output.fps, output.num_frames, output.height, output.width) == (12, 16, 128, 192)
    assert configuration.weights.model_dump() == {"encoder": "a.bin", "st_unet": "b.pth", "autoencoder": "c.ckpt"}


def test_a_seed_is_optional_and_may_stand_at_the_top(tmp_path: Path) -> None:
    values = change(HUB, "model.model_args.seed", ...)
    assert read(tmp_path, values).seed == 666
    assert read(tmp_path, change(values, "seed", 5)).seed == 5


def test_networks_are_described_with_the_published_keys(tmp_path: Path) -> None:
    unet = {
        "type": "Img2VidSDUNet",
        "in_dim": 4,
        "dim": 64,
        "y_dim": 48,
        "context_dim": 1024,
        "out_dim": 4,
        "dim_mult": [1, 2, 4],
        "num_heads": 4,
        "head_dim": 16,
        "num_res_blocks": 1,
        "attn_scales": [1 / 1, 1 / 2],
        "dropout": 0.0,
        "temporal_attention": True,
        "temporal_attn_times": 1,
        "use_checkpoint": False,
        "use_fps_condition": False,
        "use_sim_mask": False,
        "num_tokens": 3,
        "default_fps": 8,
        "input_dim": 48,
    }
    autoencoder = {
        "type": "AutoencoderKL",
        "ddconfig": {
            "double_z": True,
            "z_channels": 4,
            "resolution": 256,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 32,
            "ch_mult": [1, 2, 2, 2],
            "num_res_blocks": 1,
            "attn_resolutions": [],
            "dropout": 0.0,
        },
        "embed_dim": 4,
        "pretrained": "v2-1_512-ema-pruned.ckpt",
    }
    embedder = {
        "type": "FrozenOpenCLIPVisualEmbedder",
        "layer": "penultimate",
        "arch": {
            "embed_dim": 48,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
            "text_cfg": {"width": 16},
        },
        "vit_resolution": [64, 64],
        "vit_mean": [0.5, 0.4, 0.3],
        "vit_std": [0.1, 0.2, 0.3],
        "pretrained": "open_clip_pytorch_model.bin",
    }
    configuration = read(tmp_path, hub(UNet=unet, auto_encoder=autoencoder, embedder=embedder))
    shipped = reader.shipped("image-to-video")
    assert configuration.st_unet.options == shipped.st_unet.options | {
        "channels": 64,
        "multipliers": [1, 2, 4],
        "residual_blocks": 1,
        "head_channels": 16,
        "stem_heads": 4,
        "attention_levels": [0, 1],
        "dropout": 0.0,
        "context": {"type": "image-vector", "in_channels": 48, "tokens": 3},
    }
    assert configuration.autoencoder.options == shipped.autoencoder.options | {
        "channels": 32,
        "multipliers": [1, 2, 2, 2],
        "residual_blocks": 1,
    }
    assert configuration.encoder.options == {
        "embed_dim": 48,
        "vision": {"image_size": 64, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16, "mlp_ratio": 4.0},
        "activation": "quick_gelu",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.1, 0.2, 0.3],
    }


def test_heads_without_a_number_follow_the_width(tmp_path: Path) -> None:
    assert read(tmp_path, hub(UNet={"dim": 128, "num_heads": None})).st_unet.options["stem_heads"] == 4
    assert read(tmp_path, hub(UNet={"dim": 128})).st_unet.options["stem_heads"] == 8


def test_open_clips_names_give_its_numbers(tmp_path: Path) -> None:
    named = read(tmp_path, hub(embedder={"arch": "ViT-H-14"}))
    assert named == reader.shipped("image-to-video")
    small = read(tmp_path, hub(embedder={"arch": "ViT-B-32"}, UNet={"y_dim": 512}))
    assert small.encoder.options["vision"]["width"] == 768
    assert small.encoder.options["vision"]["patch_size"] == 32
    with pytest.raises(ConfigurationError, match=r"embedder.arch: .*'ViT-H-15'; did you mean 'ViT-"):
        read(tmp_path, hub(embedder={"arch": "ViT-H-15"}))
    with pytest.raises(ConfigurationError, match="not a plain vision transformer"):
        read(tmp_path, hub(embedder={"arch": "convnext_base"}))


def test_unknown_keys_are_warned_about_once_and_ignored(tmp_path: Path) -> None:
    values = hub(new_in_v2=1, UNet={"gating": True})
    values |= {"plugins": ["evil"], "allow_remote": True, "license": "x"}
    values["model"]["model_args"]["extra"] = None
    with pytest.warns(ConfigurationWarning) as caught:
        configuration = reader.read(write(tmp_path, values))
    assert len(caught) == 1
    text = str(caught[0].message)
    for key in (
        "plugins",
        "allow_remote",
        "license",
        "model.model_args.extra",
        "model.model_cfg.new_in_v2",
        "model.model_cfg.UNet.gating",
    ):
        assert key in text
    assert configuration == reader.shipped("image-to-video")
    assert caught[0].filename == __file__


SECTIONS = ("model_args", "model_cfg")
GIVEN = [f"model.{section}.{key}" for section in SECTIONS for key in HUB["model"][section] if key != "seed"]
REQUIRED = ["task", "model", "model.model_args", "model.model_cfg", *GIVEN]


@pytest.mark.parametrize("path", REQUIRED)
def test_a_required_key_that_is_missing_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigurationError, match=f"configuration.json: {path}: "):
        read(tmp_path, change(HUB, path, ...))


WRONG = [
    ("task", "text-to-video", "task: 'text-to-video' has no shipped configuration"),
    ("task", "image-to-video-rotary", "task: .*did you mean 'image-to-video'"),
    ("task", 3, "task: 3 has no"),
    ("model", [], "model: "),
    ("model.type", "video-to-video-model", "'video-to-video-model' is not the class of the task 'image-to-video'"),
    ("model.model_args.ckpt_unet", "../../x.pth", "model.model_args.ckpt_unet: a file name inside"),
    ("model.model_args.ckpt_unet", 3, "model.model_args.ckpt_unet: "),
    ("model.model_args.seed", None, "model.model_args.seed: "),
    ("model.model_args.seed", 2**64, "model.model_args.seed: "),
    ("model.model_cfg.batch_size", True, "model.model_cfg.batch_size: .*got True"),
    ("model.model_cfg.max_frames", 0, "model.model_cfg.max_frames: "),
    ("model.model_cfg.max_frames", "32", "model.model_cfg.max_frames: .*got '32'"),
    ("model.model_cfg.max_frames", 10**12, "model.model_cfg.max_frames: "),
    ("model.model_cfg.latent_hei", -1, "model.model_cfg.latent_hei: "),
    ("model.model_cfg.latent_wid", 1.5, "model.model_cfg.latent_wid: "),
    ("model.model_cfg.target_fps", 0, "model.model_cfg.target_fps: "),
    ("model.model_cfg.UNet", {"dim": -1}, "model.model_cfg.UNet.dim: "),
    ("model.model_cfg.UNet", {"dim_mult": []}, "model.model_cfg.UNet.dim_mult: "),
    ("model.model_cfg.UNet", {"dim_mult": [1, True]}, "model.model_cfg.UNet.dim_mult.1: "),
    ("model.model_cfg.UNet", {"attn_scales": [0.3]}, "model.model_cfg.UNet.attn_scales: .*got 0.3"),
    ("model.model_cfg.UNet", {"temporal_attention": False}, "UNet.temporal_attention: "),
    ("model.model_cfg.UNet", {"use_image_dataset": True}, "UNet.use_image_dataset: "),
    ("model.model_cfg.UNet", {"y_dim": 8, "input_dim": 9}, "UNet.input_dim: 9 does not fit y_dim = 8"),
    ("model.model_cfg.UNet", {"y_dim": 8}, "st_unet.context.in_channels: 8 does not fit encoder.embed_dim"),
    ("model.model_cfg.auto_encoder", {"ddconfig": {"double_z": False}}, "ddconfig.double_z: "),
    ("model.model_cfg.auto_encoder", {"ddconfig": {"attn_resolutions": [16]}}, "ddconfig.attn_resolutions: "),
    ("model.model_cfg.auto_encoder", {"ddconfig": {"out_ch": 4}}, "ddconfig.out_ch: "),
    ("model.model_cfg.embedder", {"arch": {}}, "embedder.arch: "),
    ("model.model_cfg.embedder", {"arch": {"embed_dim": 8, "vision_cfg": {"timm_model_name": "x"}}}, "timm_model_name"),
    ("model.model_cfg.embedder", {"vit_resolution": [224, 112]}, "vit_resolution: a square"),
    (
        "model.model_cfg.embedder",
        {"vit_resolution": [336, 336], "arch": "ViT-H-14"},
        "vit_resolution: .*image size 224",
    ),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_wrong_value_is_refused_with_its_published_path(tmp_path: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        read(tmp_path, change(HUB, path, value))
    assert str(caught.value).startswith("configuration.json: ")
