"""What models are evaluated on: held-out clips that are what they are called, files that are read as they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2vgen_ms.config import reader
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.errors import ArgumentError, UnreadableMediaError
from i2vgen_ms.evaluation.degrade import degraded, enlarged
from i2vgen_ms.evaluation.metrics import psnr, sharpness
from i2vgen_ms.evaluation.samples import from_pairs, from_world
from i2vgen_ms.media.writers import open_writer
from i2vgen_ms.world import draw, render


def configuration(task: str, **output: Any) -> Configuration:
    sizes = {"width": 96, "height": 48, "num_frames": 4, **output}
    changed = reader.shipped(task)
    for name, value in sizes.items():
        changed = changed.replace(f"output.{name}", value)
    return changed


def test_clips_of_the_world_are_held_out_and_of_the_models_size_and_rate() -> None:
    samples = from_world(configuration("image-to-video", fps=4), 3, seed=9)
    scenes = [draw(9, index, split="held-out") for index in range(3)]
    assert samples.scenes == scenes
    assert torch.equal(samples.truth, render(scenes, frames=4, width=96, height=48, fps=4))
    assert samples.fps == 4


def test_the_first_stage_is_given_first_frames_and_compared_with_repeating_them() -> None:
    samples = from_world(configuration("image-to-video"), 2)
    assert samples.called == "first frame"
    assert samples.pictures is not None
    for picture, given in zip(samples.pictures, samples.inputs, strict=True):
        assert isinstance(given, Image.Image)
        away = np.abs(np.asarray(given) - (picture.numpy() + 1) * 127.5)
        assert away.max() <= 0.51
    assert torch.equal(samples.without[:, 3], samples.truth[:, 0])
    assert samples.without.shape == samples.truth.shape


def test_the_second_stage_is_given_spoilt_clips_with_their_captions() -> None:
    samples = from_world(configuration("video-to-video", fps="source"), 2)
    assert samples.called == "bicubic"
    assert samples.pictures is None
    assert samples.fps == 8
    for number, given in enumerate(samples.inputs):
        np.testing.assert_array_equal(given["video_path"], degraded(samples.truth[number], seed=number))
        assert given["text"] == samples.scenes[number].caption  # type: ignore[index]
        assert torch.equal(samples.without[number], enlarged(given["video_path"], width=96, height=48))


def test_the_damage_is_mild_and_the_same_each_time() -> None:
    truth = render([draw(1, index) for index in range(3)], frames=2, width=128, height=64)
    small = [degraded(clip, seed=5) for clip in truth]
    assert small[0].shape == (2, 32, 64, 3)
    assert small[0].dtype == np.uint8
    np.testing.assert_array_equal(small[0], degraded(truth[0], seed=5))
    assert (small[0] != degraded(truth[0], seed=6)).any()
    large = torch.stack([enlarged(frames, width=128, height=64) for frames in small])
    assert large.shape == truth.shape
    assert (psnr(large, truth) > 20).all()
    assert (psnr(large, truth) < 34).all()
    assert (sharpness(large, truth) < 0.5).all()
    edge = np.zeros((1, 8, 8, 3), np.uint8)
    edge[:, 4:] = 255
    steep = enlarged(edge, width=16, height=16)
    assert (float(steep.min()), float(steep.max())) == (-1, 1)  # cubics overshoot


def write_video(path: Path, frames: int, *, fps: int = 16, size: tuple[int, int] = (96, 48)) -> None:
    """A video whose frame n is of the brightness 10 n, between white bars that leave it twice as wide as high."""
    width, height = size
    options = {"crf": 4, "pixel_format": "yuv444p", "threads": 1}
    with open_writer(path, width=width, height=height, fps=fps, options=options) as writer:
        for number in range(frames):
            frame = np.full((height, width, 3), 255, np.uint8)
            bar = (height - width // 2) // 2
            frame[bar : height - bar] = 10 * number
            writer.write(frame)


def brightness(video: torch.Tensor) -> list[float]:
    return [round(float(frame.mean() + 1) * 12.75, 0) for frame in video]


def test_pairs_are_read_by_name_at_the_models_rate_and_size(tmp_path: Path) -> None:
    for name, frames in (("b", 8), ("a", 12)):
        write_video(tmp_path / f"{name}.mp4", frames, size=(96, 96))
        picture = Image.new("RGB", (200, 200), (255, 0, 0))
        picture.paste((0, 0, 255), (0, 50, 200, 150))
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "notes.md").write_text("not a video")
    samples = from_pairs(tmp_path, configuration("image-to-video", fps=8))
    assert samples.truth.shape == (2, 4, 48, 96, 3)
    assert brightness(samples.truth[0]) == [0, 2, 4, 6]
    assert samples.fps == 8
    assert samples.scenes is None
    assert samples.pictures is not None
    assert samples.pictures[0, 0, 0].tolist() == [-1, -1, 1]
    assert torch.equal(samples.without[1, 2], samples.pictures[1])
    assert len(from_pairs(tmp_path, configuration("image-to-video", fps=8), clips=1).inputs) == 1


def test_videos_for_the_second_stage_keep_their_rate_and_bring_their_text(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 5)
    write_video(tmp_path / "b.mp4", 5)
    (tmp_path / "b.txt").write_text("a boat\n")
    samples = from_pairs(tmp_path, configuration("video-to-video", fps="source"))
    assert brightness(samples.truth[0]) == [0, 1, 2, 3]
    assert samples.fps == 16
    assert [given["text"] for given in samples.inputs] == ["", "a boat"]
    assert samples.inputs[0]["video_path"].shape == (4, 24, 48, 3)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe b")
    with pytest.raises(ArgumentError, match=r"b\.txt: the text cannot be read as UTF-8"):
        from_pairs(tmp_path, configuration("video-to-video", fps="source"))


def test_folders_that_will_not_do_say_why(tmp_path: Path) -> None:
    wanted = configuration("image-to-video", fps=8)
    with pytest.raises(ArgumentError, match="is not a folder"):
        from_pairs(tmp_path / "none", wanted)
    with pytest.raises(ArgumentError, match="no videos in"):
        from_pairs(tmp_path, wanted)
    write_video(tmp_path / "a.mp4", 6)
    with pytest.raises(ArgumentError, match=r"a\.mp4 has 6 frames; 4 frames at 8 a second take 7"):
        from_pairs(tmp_path, wanted)
    write_video(tmp_path / "a.mp4", 7)
    with pytest.raises(ArgumentError, match=r"a\.mp4 has no picture a\.png"):
        from_pairs(tmp_path, wanted)
    (tmp_path / "a.jpg").write_bytes(b"not a picture")
    with pytest.raises(UnreadableMediaError):
        from_pairs(tmp_path, wanted)


@pytest.mark.parametrize(("clips", "frames", "message"), [(0, 4, "clips is 1 to"), (1, 1, "num_frames to 2 or more")])
def test_too_little_to_evaluate_is_refused(clips: int, frames: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        from_world(configuration("image-to-video", num_frames=frames), clips)
