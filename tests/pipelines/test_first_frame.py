"""Networks that are shown the picture as the first frame, beside the noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms.config import reader
from i2vgen_ms.config.schema import FILE, Configuration
from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.pipelines import ImageToVideo, load
from i2vgen_ms.random_model import make_random_model, write_random_weights
from tests.first_stage import SIZES
from tests.oracle import relative_error

CALL: dict[str, Any] = {"steps": 2, "seed": 3, "output_type": "pt", "progress": False}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> ImageToVideo:
    folder = make_random_model(tmp_path_factory.mktemp("shown"), SIZES)
    values = reader.read(folder).to_json()
    values["st_unet"]["extra_channels"], values["input"]["first_frame"] = 4, "latents"
    (folder / FILE).write_text(json.dumps(values), encoding="utf-8")
    write_random_weights(folder, reader.read(folder))
    return load(folder, device="cpu")


def extras(pipe: ImageToVideo, picture: Any, **call: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The extra input of the first step, and the video."""
    seen: list[torch.Tensor] = []
    network = pipe.networks.st_unet
    hook = network.register_forward_pre_hook(lambda *given: seen.append(given[2]["extra"]), with_kwargs=True)
    try:
        video = pipe(picture, **CALL, **call).tensor
    finally:
        hook.remove()
    return seen[0], video


def test_the_network_sees_the_latents_of_the_picture_in_every_frame(shown: ImageToVideo) -> None:
    height, width = shown.configuration.output.height, shown.configuration.output.width
    picture = torch.rand(3, height, width)
    extra, _ = extras(shown, picture)
    pixels = (picture * 255).round() / 255 * 2 - 1
    wanted = shown.networks.autoencoder.encode(pixels.permute(1, 2, 0)[None, None]).mode()[0, 0].permute(2, 0, 1)
    assert extra.shape == (1, 4, 3, height // 8, width // 8)  # both branches of guidance share it
    for branch in extra:
        for frame in branch.unbind(1):
            assert relative_error(frame, wanted) <= 1e-5


def test_a_larger_picture_is_cut_to_the_video_and_not_stretched(shown: ImageToVideo) -> None:
    height, width = shown.configuration.output.height, shown.configuration.output.width
    inside = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    wide = np.pad(inside, ((0, 0), (16, 16), (0, 0)), constant_values=255)
    assert torch.equal(extras(shown, wide)[0], extras(shown, inside)[0])


def test_a_size_that_the_network_cannot_take_is_padded(shown: ImageToVideo, picture: np.ndarray) -> None:
    extra, video = extras(shown, picture, width=60, height=28)
    assert video.shape[2:] == (28, 60)
    assert shown.networks.st_unet.takes(*extra.shape[3:])


def test_several_pictures_are_each_their_own_first_frame(shown: ImageToVideo, picture: np.ndarray) -> None:
    other = 255 - picture
    videos = [result.tensor for result in shown([picture, other], batch_size=2, **CALL)]
    assert relative_error(videos[1], shown(other, **CALL).tensor) <= 1e-5
    assert relative_error(videos[0], videos[1]) > 1e-3


def test_a_bare_tensor_is_not_enough(shown: ImageToVideo) -> None:
    side = shown.networks.encoder.image_size
    with pytest.raises(ArgumentError, match="first frame"):
        shown.tensor(torch.zeros(1, 3, side, side))


@pytest.mark.parametrize(
    ("channels", "use"), [(4, "unused"), (0, "latents"), (3, "latents"), (4, "latents-and-places"), (7, "latents")]
)
def test_the_networks_input_and_its_use_have_to_agree(shown: ImageToVideo, channels: int, use: str) -> None:
    values = shown.configuration.to_json()
    values["st_unet"]["extra_channels"], values["input"]["first_frame"] = channels, use
    with pytest.raises(ConfigurationError, match=r"st_unet\.extra_channels.*input\.first_frame"):
        Configuration.from_json(values)
