"""The video-to-video pipeline as its callers see it, and against the published sampling of stage 2."""

from __future__ import annotations

import json
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from einops import rearrange

from i2vgen_ms.config import reader
from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.media.writers import open_writer
from i2vgen_ms.pipelines import ClipWarning, VideoToVideo, load
from i2vgen_ms.pipelines.windows import Windowed, spans
from i2vgen_ms.random_model import write_random_weights
from tests.oracle import published, relative_error

QUICK = {"steps": 2, "output_type": "frames", "progress": False}


@pytest.fixture(scope="module")
def stage_two(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> VideoToVideo:
    folder = tmp_path_factory.mktemp("stage2")
    shipped = reader.shipped("video-to-video").to_json()
    shipped["st_unet"] |= {"channels": 32, "head_channels": 16, "multipliers": [1, 2, 2], "residual_blocks": 1}
    shipped["st_unet"] |= {"attention_levels": [0, 1], "context_channels": 1024}
    shipped["autoencoder"] |= {"channels": 32, "multipliers": [1, 1, 1, 1], "residual_blocks": 1}
    shipped["encoder"]["text"] |= {"width": 1024, "layers": 2, "mlp_ratio": 0.25}
    shipped["output"] |= {"width": 64, "height": 48, "num_frames": 4}
    (folder / "configuration.json").write_text(json.dumps(shipped))
    write_random_weights(folder, reader.read(folder))
    return load(folder, device="cpu")


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    y, x, f = np.meshgrid(np.arange(18), np.arange(32), np.arange(3), indexing="ij")
    return np.stack([x * 8, y * 14, f * 80], axis=-1).transpose(2, 0, 1, 3).astype(np.uint8)


def frames(pipe: VideoToVideo, clip: Any, **given: Any) -> np.ndarray:
    return pipe(clip, **QUICK | given).frames


def test_the_documented_call(stage_two, clip, tmp_path) -> None:
    source, target = str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4")
    with open_writer(source, width=32, height=18, fps=Fraction(25)) as writer:
        for frame in clip:
            writer.write(frame)
    result = stage_two({"video_path": source, "text": "a boat"}, output=target, steps=2, progress=False)
    assert result.path == target
    with av.open(target) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (64, 48, 8)
        assert sum(1 for _ in container.decode(video=0)) == 3
    kept = stage_two(source, output=target, fps="source", steps=1, progress=False)
    with av.open(kept.path) as container:
        assert container.streams.video[0].average_rate == 25


def test_the_configuration_chooses_the_reader(stage_two, clip, tmp_path, monkeypatch) -> None:
    source = str(tmp_path / "in.mp4")
    with open_writer(source, width=32, height=18, fps=8) as writer:
        for frame in clip:
            writer.write(frame)
    wrong = stage_two.configuration.replace("input.reader", {"type": "pyav", "thread": 1})
    monkeypatch.setattr(stage_two, "configuration", wrong)
    with pytest.raises(ConfigurationError, match="did you mean 'threads'"):
        frames(stage_two, source)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({}, (48, 64)),
        ({"width": 41, "height": 27}, (27, 41)),
        ({"fit": "keep"}, (36, 64)),
        ({"fit": "pad", "width": 30, "height": 60}, (60, 30)),
        ({"fit": "crop", "width": 16, "height": 16}, (16, 16)),
    ],
)
def test_any_size(stage_two, clip, given, size) -> None:
    assert frames(stage_two, clip, **given).shape == (3, *size, 3)


@pytest.mark.parametrize("count", [1, 4])
def test_any_number_of_frames(stage_two, clip, count) -> None:
    long = np.concatenate([clip, clip])[:count]
    assert len(frames(stage_two, long)) == count


def test_long_clips_are_cut_with_a_warning_or_windowed(stage_two, clip) -> None:
    long = np.concatenate([clip, clip, clip])
    with pytest.warns(ClipWarning, match="left out: 5 frames after frame 4"):
        assert len(frames(stage_two, long)) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(frames(stage_two, long, window=2)) == 9


def test_windows_cover_everything_and_agree_with_a_pointwise_network() -> None:
    for total in range(1, 40):
        covered = [frame for start, end in spans(total, 8, 3) for frame in range(start, end)]
        assert set(covered) == set(range(total))
    network = Windowed(lambda x, t: 2 * x + t, window=8, overlap=3)
    x = torch.randn(1, 4, 21, 2, 2)
    assert torch.allclose(network(x, torch.tensor(1.0)), 2 * x + 1, atol=1e-6)


def test_what_decides_the_result(stage_two, clip) -> None:
    base = frames(stage_two, clip, text="a boat", seed=1)
    assert np.array_equal(frames(stage_two, {"video_path": clip, "text": "a boat"}, seed=1), base)
    for change in (
        {"text": "a horse"},
        {"seed": 2},
        {"prompt_suffix": ""},
        {"negative_prompt": "dull"},
        {"strength": 0.5},
        {"start_scale": "exact"},
        {"posterior": "mode"},
        {"sampler": "heun"},
        {"guidance_rescale": 0.0},
    ):
        assert not np.array_equal(frames(stage_two, clip, **{"text": "a boat", "seed": 1} | change), base), change
    paths = [frames(stage_two, clip, steps=4, brownian_seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(paths[0], paths[1])
    assert not np.array_equal(paths[0], paths[2])


def test_words_that_are_cut_are_named(stage_two, clip) -> None:
    with pytest.warns(ClipWarning, match="'zeppelin'"):
        frames(stage_two, clip, text=" ".join(["word"] * 75 + ["zeppelin"]), steps=1)


@pytest.mark.parametrize(
    ("source", "given", "words"),
    [
        ({"text": "a boat"}, {}, "needs the key 'video_path'"),
        ({"video_path": None, "txt": ""}, {}, "not 'txt'"),
        (None, {"text": 3}, "text must be a string"),
        (None, {"strength": 0.0}, "strength=0.0"),
        (None, {"fit": "stretch"}, "fit='stretch'"),
        (None, {"fps": "source"}, "does not say its rate"),
        (None, {"num_frames": 3}, "unknown argument 'num_frames'"),
        (None, {"noised_latents": torch.zeros(1, 4, 2, 6, 8)}, "noised_latents must be"),
    ],
)
def test_wrong_arguments_are_named(stage_two, clip, source, given, words) -> None:
    with pytest.raises(ArgumentError) as error:
        frames(stage_two, clip if source is None else source, **given)
    assert words in str(error.value)


@torch.no_grad()
def test_sampling_equals_the_published_stage(stage_two, clip) -> None:
    """Text, guided sampling from timestep 599 and decoding, as the published model composes them (heun, 10 steps).

    The stochastic sampler is compared in tests/diffusion, where both sides can be given one Brownian path.
    """
    settings, networks = stage_two.configuration, stage_two.networks
    unet = published("video_to_video.modules.unet_v2v").Vid2VidSDUNet(
        dim=32, head_dim=16, dim_mult=[1, 2, 2], num_res_blocks=1, attn_scales=[1, 0.5], use_checkpoint=False
    )
    folder, weights = stage_two.folder, settings.weights
    unet.load_state_dict(torch.load(folder / weights.st_unet, weights_only=True)["state_dict"], strict=True)
    unet.eval()
    sigmas = published("video_to_video.utils.schedules_sdedit").noise_schedule(
        schedule="logsnr_cosine_interp", n=1000, zero_terminal_snr=True, scale_min=2.0, scale_max=4.0
    )
    diffusion = published("video_to_video.utils.diffusion_sdedit").GaussianDiffusion_SDEdit(sigmas, prediction_type="v")
    shape = stage_two._settle(*_settled(stage_two, clip)).latent_shape()
    noised = torch.randn(1, *shape, generator=torch.Generator().manual_seed(2))
    tokens = networks.encoder(["a boat" + settings.prompt.suffix, settings.prompt.negative])
    latents = diffusion.sample(
        noise=noised,
        model=unet,
        model_kwargs=[{"y": tokens[:1]}, {"y": tokens[1:]}],
        guide_scale=7.5,
        guide_rescale=0.2,
        solver="heun",
        steps=10,
        t_max=599,
        t_min=0,
        discretization="trailing",
    )
    decoded = networks.autoencoder.decode_all(rearrange(latents, "b c f h w -> b f h w c"))
    expected = rearrange(decoded[0, :, :48, :64], "f h w c -> c f h w")
    got = stage_two(
        clip,
        text="a boat",
        noised_latents=noised,
        sampler="heun",
        steps=10,
        output_type="pt",
        progress=False,
    ).tensor
    assert relative_error(got, expected) <= 1e-5


def _settled(stage_two: VideoToVideo, clip: np.ndarray) -> tuple[Any, Any]:
    call = stage_two._begin({"progress": False}, 1)
    return call, [stage_two._prepare(clip, call)]


@torch.no_grad()
def test_the_clip_is_encoded_and_noised_as_published(stage_two, clip, monkeypatch) -> None:
    """Normalise, squash, encode, sample the posterior, noise to timestep 599: the state before the start scale."""
    call, prepared = _settled(stage_two, clip)
    call = stage_two._settle(call, prepared)
    seen: list[torch.Tensor] = []

    def keep(network, diffusion, x, **_):
        seen.append(x)
        return x

    monkeypatch.setattr("i2vgen_ms.pipelines.video_to_video.sample", keep)
    stage_two._latents(prepared, call, slice(None))

    generator = torch.Generator().manual_seed(call.settings.seed)
    pixels = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255
    pixels = torch.nn.functional.interpolate((pixels - 0.5) / 0.5, size=(48, 64), mode="bilinear")
    posterior = stage_two.networks.autoencoder.encode(rearrange(pixels, "f c h w -> 1 f h w c"))
    drawn = torch.randn(1, 4, 3, 6, 8, generator=generator)
    latents = posterior.sample(rearrange(drawn, "b c f h w -> b f h w c"))
    latents = rearrange(latents, "b f h w c -> b c f h w")
    rows = seen[0].shape[-2] - 6
    latents = torch.nn.functional.pad(latents, (0, 0, 0, rows, 0, 0), mode="replicate")
    sigmas = published("video_to_video.utils.schedules_sdedit").noise_schedule(
        schedule="logsnr_cosine_interp", n=1000, zero_terminal_snr=True, scale_min=2.0, scale_max=4.0
    )
    s = sigmas[599]
    fresh = torch.randn(latents.shape, generator=generator)
    # published: the solver multiplies by sigma / sqrt(1 + sigma^2) = sigma_vp what is scaled already (B22).
    expected = (torch.sqrt(1 - s**2) * latents + s * fresh) * s
    assert relative_error(seen[0], expected) <= 1e-5
