"""Group J: NaN and infinity at any stage raise with the stage and the step, and no video is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms.errors import NonFiniteError
from i2vgen_ms.pipelines import ImageToVideo, VideoToVideo
from tests.hostile.helpers import leaves
from tests.media.writers.samples import moving

pytestmark = [pytest.mark.hostile, pytest.mark.group("J")]

CALL: dict[str, Any] = {"steps": 4, "seed": 1}
BAD = {"NaN": float("nan"), "+Inf": float("inf"), "-Inf": float("-inf")}


def spoiled(network: Any, name: str, value: float, at: int = 1) -> Callable[..., Any]:
    """The method, whose result has one bad number from call `at` on."""
    original, calls = getattr(network, name), [0]

    def changed(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        result = original(*given, **named)
        if calls[0] >= at:
            result[(0,) * result.ndim] = value
        return result

    return changed


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("step", [1, 3, 4])
@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m_sde"])
def test_while_sampling(
    pipe: ImageToVideo,
    picture: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bad: str,
    step: int,
    sampler: str,
) -> None:
    network = pipe.networks.st_unet
    monkeypatch.setattr(network, "forward", spoiled(network, "forward", BAD[bad], at=step))
    with leaves(tmp_path), pytest.raises(NonFiniteError, match=rf"sampling, step {step} of 4: .*float32"):
        pipe(picture, output=tmp_path / "out.mp4", sampler=sampler, **CALL)
    monkeypatch.undo()
    with leaves(tmp_path, "out.mp4"):
        pipe(picture, output=tmp_path / "out.mp4", sampler=sampler, **CALL)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("stage", ["first", "second"])
def test_while_decoding(
    pipe: ImageToVideo,
    second: VideoToVideo,
    picture: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bad: str,
    stage: str,
) -> None:
    each: Any = pipe if stage == "first" else second
    autoencoder = each.networks.autoencoder
    decode = autoencoder.decode

    def chunks(*given: Any) -> Any:
        for chunk in decode(*given):
            chunk[0, -1, 2, 2, 1] = BAD[bad]
            yield chunk

    monkeypatch.setattr(autoencoder, "decode", chunks)
    source = picture if stage == "first" else moving(64, 32, 3)
    with leaves(tmp_path), pytest.raises(NonFiniteError, match=r"decoding: .* after frame \d+; try dtype 'float32'"):
        each(source, output=tmp_path / "out.mp4", **CALL)


@pytest.mark.parametrize("what", ["text", "clip"])
def test_while_encoding_a_clip(
    second: VideoToVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "text":
        network = second.networks.encoder
        monkeypatch.setattr(network, "forward", spoiled(network, "forward", float("nan")))
    else:
        encode = second.networks.autoencoder.encode

        def encoded(*given: Any) -> Any:
            posterior = encode(*given)
            posterior.mean[(0,) * posterior.mean.ndim] = float("inf")
            return posterior

        monkeypatch.setattr(second.networks.autoencoder, "encode", encoded)
    with (
        leaves(tmp_path),
        pytest.raises(NonFiniteError, match=f"encoding the {what}: NaN or infinity"),
    ):
        second(moving(64, 32, 3), output=tmp_path / "out.mp4", **CALL)


def test_while_encoding_a_picture(
    pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = pipe.networks.encoder
    monkeypatch.setattr(network, "forward", spoiled(network, "forward", float("nan")))
    with leaves(tmp_path), pytest.raises(NonFiniteError, match="encoding the picture"):
        pipe(picture, output=tmp_path / "out.mp4", **CALL)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_in_the_input(pipe: ImageToVideo, second: VideoToVideo, tmp_path: Path, bad: str, kind: str) -> None:
    values = np.full((32, 48, 3), 0.5, np.float32)
    values[3, 4, 1] = BAD[bad]
    source: Any = values if kind == "array" else torch.from_numpy(values).permute(2, 0, 1)
    with leaves(tmp_path), pytest.raises(NonFiniteError, match="NaN or infinity"):
        pipe(source, output=tmp_path / "out.mp4", **CALL)
    clip = torch.zeros(3, 3, 32, 64)
    clip[0, 1, 2, 3] = BAD[bad]
    with leaves(tmp_path), pytest.raises(NonFiniteError, match="NaN or infinity"):
        second(clip, output=tmp_path / "out.mp4", **CALL)


@pytest.mark.parametrize("bad", BAD)
def test_in_latents_that_are_given(
    pipe: ImageToVideo, second: VideoToVideo, picture: np.ndarray, tmp_path: Path, bad: str
) -> None:
    latents = torch.zeros(1, 4, 3, 4, 8)
    latents[0, 0, 0, 0, 0] = BAD[bad]
    with leaves(tmp_path), pytest.raises(NonFiniteError, match=r"^latents: NaN"):
        pipe(picture, output=tmp_path / "out.mp4", latents=latents, **CALL)
    with leaves(tmp_path), pytest.raises(NonFiniteError, match=r"^noised_latents: NaN"):
        second(moving(64, 32, 3), output=tmp_path / "out.mp4", noised_latents=latents, **CALL)


@pytest.mark.parametrize("name", ["guidance_scale", "guidance_rescale", "strength", "start_scale"])
@pytest.mark.parametrize("bad", BAD)
def test_in_an_argument(second: VideoToVideo, name: str, bad: str) -> None:
    with pytest.raises(ValueError, match=name):
        second(moving(64, 32, 3), **{name: BAD[bad]}, **CALL)


def test_an_overflow_of_fp16(
    pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a network that computes in fp16 gives beyond 65504."""
    network = pipe.networks.st_unet
    forward = network.forward
    monkeypatch.setattr(
        network, "forward", lambda *given, **named: (forward(*given, **named) * 1e6).half().to(given[0].dtype)
    )
    with leaves(tmp_path), pytest.raises(NonFiniteError, match=r"step 1 of 4.*float32"):
        pipe(picture, output=tmp_path / "out.mp4", **CALL)
