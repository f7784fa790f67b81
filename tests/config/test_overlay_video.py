"""Official hub folders of video-to-video: what they change, what they may describe, and that the rest is published."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest

from i2vgen_ms.config import reader
from i2vgen_ms.config.overlay import ConfigurationWarning
from i2vgen_ms.config.schema import VideoToVideoConfiguration
from i2vgen_ms.errors import ConfigurationError
from tests.config.folders import HUB, change, write
from tests.oracle import published

HUB_VIDEO: dict[str, Any] = {
    "framework": "pytorch",
    "task": "video-to-video",
    "model": {
        "type": "video-to-video-model",
        "model_args": {
            "ckpt_clip": "open_clip_pytorch_model.bin",
            "ckpt_unet": "non_ema_0035000.pth",
            "ckpt_autoencoder": "v2-1_512-ema-pruned.ckpt",
            "seed": 666,
            "solver_mode": "fast",
        },
        "model_cfg": {"batch_size": 1, "target_fps": 8, "max_frames": 32, "latent_hei": 90, "latent_wid": 160},
    },
    "pipeline": {"type": "video-to-video-pipeline"},
}
ARCH = {
    "embed_dim": 48,
    "quick_gelu": True,
    "text_cfg": {"context_length": 20, "vocab_size": 49500, "width": 64, "heads": 4, "layers": 3},
    "vision_cfg": {"timm_model_name": "anything"},
}


def hub(**model_cfg: Any) -> dict[str, Any]:
    values = copy.deepcopy(HUB_VIDEO)
    values["model"]["model_cfg"] |= model_cfg
    return values


def read(folder: Path, values: Any) -> VideoToVideoConfiguration:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configuration = reader.read(write(folder, values))
    assert isinstance(configuration, VideoToVideoConfiguration)
    return configuration


def test_the_official_folder_is_the_shipped_variant(tmp_path: Path) -> None:
    assert read(tmp_path, HUB_VIDEO) == reader.shipped("video-to-video")


def test_the_shipped_prompts_are_the_published_ones() -> None:
    theirs = published("video_to_video.utils.config").cfg
    shipped = reader.shipped("video-to-video")
    assert isinstance(shipped, VideoToVideoConfiguration)
    assert shipped.prompt.suffix == theirs.positive_prompt
    assert shipped.prompt.negative == theirs.negative_prompt
    assert shipped.autoencoder.options["scale_factor"] == theirs.scale_factor
    assert shipped.encoder.options["layer"] == theirs.embedder.layer


def test_the_published_settings_of_the_networks_are_the_shipped_ones(tmp_path: Path) -> None:
    theirs = published("video_to_video.utils.config").cfg
    described = hub(UNet=theirs.UNet, auto_encoder=theirs.auto_encoder, embedder=theirs.embedder)
    assert read(tmp_path, described) == reader.shipped("video-to-video")


@pytest.mark.parametrize(
    ("mode", "sampler", "steps"),
    [
        ("fast", "dpmpp_2m_sde", 30),
        (..., "dpmpp_2m_sde", 30),
        ("normal", "heun", 50),
        ("Fast", "heun", 50),
        ("", "heun", 50),
        (None, "heun", 50),
    ],
)
def test_the_solver_mode_chooses_sampler_and_steps(tmp_path: Path, mode: Any, sampler: str, steps: int) -> None:
    configuration = read(tmp_path, change(HUB_VIDEO, "model.model_args.solver_mode", mode))
    assert (configuration.diffusion.sampler.type, configuration.diffusion.steps) == (sampler, steps)
    modes = configuration.solver_modes
    chosen = modes.fast if steps == 30 else modes.other
    assert (configuration.diffusion.sampler, configuration.diffusion.steps) == (chosen.sampler, chosen.steps)
    assert modes == reader.shipped("video-to-video").solver_modes  # type: ignore[attr-defined]


def test_sizes_and_file_names_land_where_they_belong(tmp_path: Path) -> None:
    values = hub(batch_size=2, target_fps=12, max_frames=16, latent_hei=16, latent_wid=24)
    values["model"]["model_args"] = {
        "ckpt_clip": "a.bin",
        "ckpt_unet": "b.pth",
        "ckpt_autoencoder": "c.ckpt",
        "seed": 7,
    }
    configuration = read(tmp_path, values)
    assert (configuration.batch_size, configuration.seed) == (2, 7)
    output = configuration.output
    assert (output.fps, output.num_frames, output.height, output.width) == (12, 16, 128, 192)
    assert configuration.weights.model_dump() == {"encoder": "a.bin", "st_unet": "b.pth", "autoencoder": "c.ckpt"}


def test_networks_are_described_with_the_published_keys(tmp_path: Path) -> None:
    unet = {"dim": 64, "context_dim": 64, "dim_mult": [1, 2], "num_heads": 4, "attn_scales": [0.5], "y_dim": 7}
    autoencoder = {"ddconfig": {"ch": 32, "ch_mult": [1, 2, 2, 2], "num_res_blocks": 1}, "embed_dim": 4}
    embedder = {"type": "FrozenOpenCLIPEmbedder", "arch": ARCH, "layer": "last", "max_length": 77}
    configuration = read(tmp_path, hub(UNet=unet, auto_encoder=autoencoder, embedder=embedder))
    shipped = reader.shipped("video-to-video")
    assert configuration.st_unet.options == shipped.st_unet.options | {
        "channels": 64,
        "multipliers": [1, 2],
        "stem_heads": 4,
        "attention_levels": [1],
        "context_channels": 64,
    }
    assert configuration.autoencoder.options == shipped.autoencoder.options | {
        "channels": 32,
        "multipliers": [1, 2, 2, 2],
        "residual_blocks": 1,
    }
    assert configuration.encoder.options == {
        "text": {**ARCH["text_cfg"], "mlp_ratio": 4.0},  # type: ignore[dict-item]
        "activation": "quick_gelu",
        "layer": "last",
    }


def test_open_clips_names_give_its_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, hub(embedder={"arch": "ViT-H-14"})) == reader.shipped("video-to-video")
    small = read(tmp_path, hub(embedder={"arch": "ViT-B-32-quickgelu"}, UNet={"context_dim": 512})).encoder.options
    assert (small["text"]["width"], small["text"]["layers"], small["activation"]) == (512, 12, "quick_gelu")
    with pytest.raises(ConfigurationError, match=r"embedder.arch: .*'ViT-H-15'; did you mean 'ViT-"):
        read(tmp_path, hub(embedder={"arch": "ViT-H-15"}))
    with pytest.raises(ConfigurationError, match="not a plain text transformer"):
        read(tmp_path, hub(embedder={"arch": "roberta-ViT-B-32"}))


def test_unknown_keys_are_warned_about_once_and_ignored(tmp_path: Path) -> None:
    values = hub(new=1, UNet={"gating": True}, embedder={"stride": 1}) | {"plugins": ["x"]}
    values["model"]["model_args"]["extra"] = None
    with pytest.warns(ConfigurationWarning) as caught:
        configuration = reader.read(write(tmp_path, values))
    (warning,) = caught
    paths = ("plugins", "model_args.extra", "model_cfg.new", "model_cfg.UNet.gating", "model_cfg.embedder.stride")
    assert all(path in str(warning.message) for path in paths)
    assert configuration == reader.shipped("video-to-video")


def test_a_solver_mode_means_nothing_to_image_to_video(tmp_path: Path) -> None:
    with pytest.warns(ConfigurationWarning, match=r"ignored: model\.model_args\.solver_mode$"):
        reader.read(write(tmp_path, change(HUB, "model.model_args.solver_mode", "fast")))


WRONG = [
    ("model.type", "image-to-video-model", "'image-to-video-model' is not the class of the task 'video-to-video'"),
    ("pipeline.type", "image-to-video-task-pipeline", "is not the class of the task 'video-to-video'"),
    ("model.model_args.ckpt_unet", "/etc/passwd", "model.model_args.ckpt_unet: a file name inside"),
    ("model.model_args.ckpt_unet", ..., "model.model_args.ckpt_unet: missing"),
    ("model.model_cfg.max_frames", 0, "model.model_cfg.max_frames: "),
    ("model.model_cfg.UNet", {"use_fps_condition": True}, "UNet.use_fps_condition: "),
    ("model.model_cfg.UNet", {"temporal_attention": False}, "UNet.temporal_attention: "),
    ("model.model_cfg.UNet", {"context_dim": 8}, "st_unet.context_channels: 8 does not fit encoder.text.width = 1024"),
    ("model.model_cfg.embedder", {"layer": "first"}, "embedder.layer: .*got 'first'"),
    ("model.model_cfg.embedder", {"arch": {"embed_dim": 8}}, "embedder.arch: .*text_cfg is expected"),
    ("model.model_cfg.embedder", {"arch": {**ARCH, "quick_gelu": 1}}, "quick_gelu: true or false"),
    ("model.model_cfg.embedder", {"arch": {**ARCH, "custom_text": True}}, "arch.custom_text: not a plain text"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_wrong_value_is_refused_with_its_published_path(tmp_path: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        read(tmp_path, change(HUB_VIDEO, path, value))
    assert str(caught.value).startswith("configuration.json: ")
