"""The small trained models that come with the package: they load by their ids, and do what their cards say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2vgen_ms import demo
from i2vgen_ms.config import data
from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.evaluation import metrics
from i2vgen_ms.evaluation.degrade import degraded, enlarged
from i2vgen_ms.media.clip import read_clip
from i2vgen_ms.media.frames import to_pixels
from i2vgen_ms.pipelines import load
from i2vgen_ms.world import draw, render


def test_the_video_starts_from_the_picture() -> None:
    pipe = load(demo.FIRST, device="cpu")
    chosen = demo.sample("circle")
    video = pipe(chosen.path, steps=4, output_type="pt", progress=False).tensor
    assert video.shape == (3, 16, 64, 128)
    picture = to_pixels(np.array(Image.open(chosen.path).convert("RGB").resize((128, 64), Image.Resampling.BOX)))
    assert metrics.psnr(video[None, :, :1].movedim(1, -1), picture[None, None]) > 26
    later = metrics.psnr(video[None, :, -1:].movedim(1, -1), picture[None, None])
    assert later < 24, "the thing moves away from where it was"


def test_the_second_stage_sharpens() -> None:
    pipe = load(demo.SECOND, device="cpu")
    scene = draw(0, 3, split="held-out", aspect=2)
    truth = render([scene], frames=2, width=256, height=128)
    small = degraded(truth[0], seed=1)
    assert small.shape[1] * 2 <= 128
    bicubic = enlarged(small, width=256, height=128)[None]
    made = pipe(small, text=scene.caption, max_frames=2, fps=8, steps=4, output_type="pt", progress=False).tensor
    made = made.movedim(0, -1)[None]
    assert made.shape == truth.shape
    sharp, blurred = (float(metrics.sharpness(video, truth)) for video in (made, bicubic))
    assert blurred < sharp < 1.5
    assert metrics.ssim(made, truth) > metrics.ssim(bicubic, truth) - 0.01


@pytest.mark.parametrize(
    "name", ["i2vgen-ms/nothing", "i2vgen-ms/../configuration", "i2vgen-ms/", "other/demo", "i2vgen-ms"]
)
def test_other_names_are_no_bundled_models(name: str) -> None:
    assert data.bundled_folder(name) is None
    with pytest.raises(ConfigurationError, match="is not a folder"):
        load(name, device="cpu")


def test_the_bundled_pictures_are_there_and_an_unknown_one_is_named() -> None:
    assert all(one.path.is_file() and one.text for one in demo.samples())
    with pytest.raises(ConfigurationError, match="no bundled picture 'circel'; did you mean 'circle'"):
        demo.sample("circel")


@pytest.mark.full
def test_the_demonstration_leaves_two_videos_and_a_sheet(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "i2vgen_ms", "demo", "-o", "made.mp4"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"made.mp4", "made-first.mp4", "made.png"}
    for name, size in (("made.mp4", (128, 256)), ("made-first.mp4", (64, 128))):
        assert np.asarray(read_clip(tmp_path / name, max_frames=99).frames).shape == (16, *size, 3)
        assert str(tmp_path / name) in done.stdout
    with Image.open(tmp_path / "made.png") as sheet:
        assert min(sheet.size) > 256
