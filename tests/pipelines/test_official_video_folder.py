"""The small video-to-video model in the official layout, from its folder to a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from i2vgen_ms.pipelines import VideoToVideo, load
from i2vgen_ms.random_model import make_random_model


def test_a_video_from_an_official_folder(tmp_path: Path, cache: Path) -> None:
    pipe = load(make_random_model(tmp_path / "model", task="video-to-video"), device="cpu")
    assert isinstance(pipe, VideoToVideo)
    clip = np.random.default_rng(0).integers(0, 256, (3, 18, 32, 3), dtype=np.uint8)
    options = {"output_type": "frames", "steps": 2, "progress": False}
    video = pipe({"video_path": clip, "text": "a boat"}, **options).frames
    assert video.shape == (3, 48, 64, 3)
    assert video.std() > 1
    assert not np.array_equal(pipe({"video_path": clip, "text": "a horse"}, **options).frames, video)


def test_other_tasks_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        make_random_model(tmp_path / "none", task="text-to-video")  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()
