"""Both stages in one call, against the two calls that it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms.errors import ArgumentError, OutputError
from i2vgen_ms.media.clip import read_clip
from i2vgen_ms.pipelines import Animation, ImageToVideo, VideoToVideo, load
from i2vgen_ms.random_model import make_random_model

FIRST: dict[str, Any] = {"steps": 1}
SECOND: dict[str, Any] = {"steps": 1, "width": 72, "height": 40}
QUICK: dict[str, Any] = {"first": FIRST, "second": SECOND, "progress": False}


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> VideoToVideo:
    folder = make_random_model(tmp_path_factory.mktemp("second"), {"max_frames": 3}, task="video-to-video")
    return load(folder, device="cpu")


@pytest.fixture(scope="module")
def animation(pipe: ImageToVideo, second: VideoToVideo) -> Animation:
    return Animation(pipe, second)


def test_it_is_both_calls_with_the_decoded_frames_between(animation, pipe, second, picture, monkeypatch) -> None:
    small = pipe(picture, output_type="pt", seed=4, progress=False, **FIRST).tensor
    expected = second(small, text="a boat", output_type="pt", seed=4, progress=False, **SECOND).tensor

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a file between the stages")

    monkeypatch.setattr("i2vgen_ms.pipelines.delivery.open_writer", refuse)
    monkeypatch.setattr("i2vgen_ms.media.video.open_video", refuse)
    result = animation(picture, text="a boat", seed=4, output_type="pt", **QUICK)
    assert torch.equal(result.tensor, expected)
    assert result.seed == 4
    rounded = ((small + 1) * 127.5).round() / 127.5 - 1
    lossy = second(rounded, text="a boat", output_type="pt", seed=4, progress=False, **SECOND).tensor
    assert not torch.equal(result.tensor, lossy)
    assert not torch.equal(animation(picture, seed=4, output_type="pt", **QUICK).tensor, expected)


def test_both_videos_of_each_picture_of_a_list(animation, picture, tmp_path) -> None:
    names = {"output": tmp_path / "o.mp4", "keep_first": tmp_path / "small.mp4"}
    results = animation([picture, picture[:, ::-1].copy()], **names, **QUICK)
    assert [result.path for result in results] == [str(tmp_path / f"o_{index}.mp4") for index in (0, 1)]
    sizes = {
        file.name: (read_clip(file, max_frames=9).width, read_clip(file, max_frames=9).height)
        for file in tmp_path.iterdir()
    }
    assert sizes == {"o_0.mp4": (72, 40), "o_1.mp4": (72, 40), "small_0.mp4": (64, 32), "small_1.mp4": (64, 32)}
    large = read_clip(tmp_path / "o_0.mp4", max_frames=9)
    assert (large.count, large.fps) == (3, 8)


def test_the_first_video_is_what_the_first_stage_writes(animation, pipe, picture, tmp_path) -> None:
    result = animation(picture, keep_first=tmp_path / "kept.mp4", output_type="frames", **QUICK)
    assert result.frames.shape == (3, 40, 72, 3)
    pipe(picture, output=tmp_path / "alone.mp4", progress=False, **FIRST)
    assert (tmp_path / "kept.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()


def test_the_seed_and_the_rate_of_either(animation, picture, tmp_path) -> None:
    base = animation(picture, seed=1, output_type="frames", **QUICK).frames
    for stage in ("first", "second"):
        changed = QUICK | {stage: {**QUICK[stage], "seed": 2}}
        assert not np.array_equal(animation(picture, seed=1, output_type="frames", **changed).frames, base), stage
    rates = QUICK | {"first": {**FIRST, "fps": 5}, "second": {**SECOND, "fps": "source"}}
    animation(picture, output=tmp_path / "o.mp4", **rates)
    assert read_clip(tmp_path / "o.mp4", max_frames=9).fps == 5


def test_progress_of_both(animation, picture) -> None:
    seen: list[str] = []
    animation(picture, **QUICK | {"progress": lambda event: seen.append(event.stage)})
    assert list(dict.fromkeys(seen)) == ["sampling", "decoding"]
    assert seen.index("decoding") < len(seen) - 1 - seen[::-1].index("sampling")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"first": {"step": 1}}, "first: unknown argument 'step'; did you mean 'steps'"),
        ({"first": {"max_frames": 1}}, "first: unknown argument 'max_frames'"),
        ({"first": 3}, "first must be a dict"),
        ({"second": {"text": "a boat"}}, "second: give 'text' to the call itself"),
        ({"second": {"strength": 0.0}}, "strength=0.0"),
        ({"second": {"output": "x.mp4"}}, "second: give 'output' to the call itself"),
        ({"text": 3}, "text must be a string"),
        ({"output_type": "mp4"}, "output_type='mp4'"),
    ],
)
def test_wrong_arguments_are_found_before_any_work(animation, picture, monkeypatch, given, words) -> None:
    monkeypatch.setattr(ImageToVideo, "__call__", lambda *_, **__: pytest.fail("the first stage ran"))
    with pytest.raises(ArgumentError) as error:
        animation(picture, **given)
    assert words in str(error.value)


def test_places_that_cannot_be_written_to_are_found_before_any_work(animation, picture, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(ImageToVideo, "__call__", lambda *_, **__: pytest.fail("the first stage ran"))
    with pytest.raises(OutputError):
        animation(picture, output=tmp_path / "nowhere" / "o.mp4")
    assert list(tmp_path.iterdir()) == []


def test_stages_in_the_wrong_order(pipe, second) -> None:
    with pytest.raises(ArgumentError, match="first must be a pipeline ImageToVideo"):
        Animation(second, pipe)
