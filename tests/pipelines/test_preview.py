"""What a run looks like before it is done: a few small frames, and the same result as without looking."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.pipelines import ImageToVideo, Progress, load
from i2vgen_ms.pipelines.preview import pictures

SIZE = {"width": 60, "height": 32, "num_frames": 3, "steps": 2, "seed": 5}


def test_a_preview_shows_the_video_and_changes_nothing(pipe: ImageToVideo, picture: np.ndarray) -> None:
    seen: list[np.ndarray] = []

    def look(event: Progress) -> None:
        frames = event.preview(2, 512)
        if event.stage == "sampling":
            assert frames is not None
            seen.append(frames)
        else:
            assert frames is None

    plain = pipe(picture, output_type="frames", progress=False, **SIZE).frames
    looked = pipe(picture, output_type="frames", progress=look, **SIZE).frames
    np.testing.assert_array_equal(plain, looked)
    assert [frames.shape for frames in seen] == [(2, 32, 60, 3)] * 2
    assert seen[0].dtype == np.uint8
    away = [np.abs(frames.astype(int) - plain[[0, 2]].astype(int)).mean() for frames in seen]
    assert away[1] < away[0] < 10  # closer with every step, and the last one is all but the video


def test_what_is_large_is_decoded_small() -> None:
    asked: list[tuple[int, ...]] = []

    def decode(latents: torch.Tensor):  # type: ignore[no-untyped-def]
        asked.append(tuple(latents.shape))
        for one in latents.split(1, dim=1):
            yield one[..., :3].repeat_interleave(8, 2).repeat_interleave(8, 3)

    latents = torch.linspace(-1, 1, 9)[None, None, :, None, None].expand(2, 4, 9, 40, 80)
    decoder, output = SimpleNamespace(factor=8, decode=decode), SimpleNamespace(height=316, width=640)
    frames = pictures(latents, decoder, output, frames=3, side=320)
    assert asked == [(1, 3, 20, 40, 4)]
    assert frames.shape == (3, 158, 320, 3)
    assert [int(frame.mean()) for frame in frames] == [0, 128, 255]  # first, middle and last
    assert len(pictures(latents[:, :, :2], decoder, output, frames=5, side=640)) == 2
    assert asked[-1] == (1, 2, 40, 80, 4)
    with pytest.raises(ArgumentError, match="a preview has at least 1 frame and 8 pixels a side, not 0 and 640"):
        pictures(latents, decoder, output, frames=0, side=640)


def test_the_settings_of_a_call_are_those_it_would_have(pipe: ImageToVideo, tmp_path: Path) -> None:
    settings = pipe.settings(steps=7, width=48)
    assert (settings.diffusion.steps, settings.output.width) == (7, 48)
    assert settings.output.height == pipe.configuration.output.height
    with pytest.raises(ArgumentError, match="did you mean 'steps'"):
        pipe.settings(stepz=7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("memory", ["fast", "balanced", "low"])
def test_looking_moves_nothing_out_of_the_way_on_a_device(folder: Path, picture: np.ndarray, memory: str) -> None:
    placed = load(folder, device="cuda", memory=memory)
    plain = placed(picture, output_type="frames", progress=False, **SIZE).frames
    seen: list[np.ndarray | None] = []
    looked = placed(picture, output_type="frames", progress=lambda event: seen.append(event.preview(2)), **SIZE).frames
    np.testing.assert_array_equal(plain, looked)
    assert [frames.shape for frames in seen if frames is not None] == [(2, 32, 60, 3)] * 2
