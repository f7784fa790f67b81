"""Every format: the frames come back, at their rate, with their metadata, in odd sizes, and in the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.media.video import open_video
from i2vgen_ms.media.writers import open_writer
from i2vgen_ms.media.writers.gif import durations
from tests.media.writers.samples import NAMES, moving, read, write

VIDEOS = NAMES[:3]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(48, 32), (47, 32), (48, 31), (47, 31), (1, 1), (3, 40)])
def test_frames_come_back_in_any_size(tmp_path, name, size):
    frames = moving(*size)
    path = write(str(tmp_path / name) + "/" * name.endswith("/"), frames).path
    result = read(path)
    assert len(result) == len(frames)
    even = name in ("out.mp4", "out.mkv")
    assert result.shape[1:3] == tuple(side + side % 2 if even else side for side in frames.shape[1:3])
    shown = result[:, : frames.shape[1], : frames.shape[2]].astype(int)
    error = np.abs(shown - frames)
    assert error.mean() < (0.01 if name == "frames/" else 4 if size[0] != 3 else 13)  # steep in colour
    if even:  # what was added is the neighbour once more, not black
        assert np.abs(result[:, -1, -1].astype(int) - frames[:, -1, -1]).max() < 24


def test_444_keeps_odd_sizes(tmp_path):
    frames = moving(47, 31)
    assert read(write(tmp_path / "a.mp4", frames, options={"pixel_format": "yuv444p"}).path).shape == frames.shape


@pytest.mark.parametrize(("width", "height", "matrix"), [(64, 48, 6), (1280, 16, 1), (16, 720, 1)])
@pytest.mark.parametrize("name", VIDEOS)
def test_colours_are_right_and_the_file_says_which_they_are(tmp_path, name, width, height, matrix):
    colours = np.array([[200, 20, 20], [20, 200, 20], [20, 20, 200], [255, 255, 255], [0, 0, 0], [128, 128, 128]])
    frames = np.broadcast_to(colours[:, None, None], (6, height, width, 3)).astype(np.uint8)
    path = write(tmp_path / name, frames).path
    assert np.abs(read(path).astype(int) - frames).max() <= 6
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (matrix, 1)
        assert (int(frame.color_primaries), int(frame.color_trc)) == (matrix, matrix)


@pytest.mark.parametrize("name", [*VIDEOS, "out.gif"])
@pytest.mark.parametrize("fps", [8, 24, 12.5, 30000 / 1001, 1])
def test_rate(tmp_path, name, fps):
    frames = moving(frames=25)
    path = write(tmp_path / name, frames, fps=fps).path
    with open_video(path) as video:
        assert float(video.info.fps) == pytest.approx(fps, rel=2e-3 if name != "out.gif" else 1e-2)
    if name == "out.mp4":
        with av.open(str(path)) as container:
            assert container.streams.video[0].average_rate == Fraction(fps).limit_denominator(1001)
            assert float(container.duration / av.time_base) == pytest.approx(25 / fps, rel=1e-3)


def test_durations_of_frames_never_drift():
    for fps in (Fraction(8), Fraction(24), Fraction(30000, 1001), Fraction(50)):
        parts = durations(100, fps, unit=10)
        assert all(part > 0 and part % 10 == 0 for part in parts)
        assert abs(sum(parts) - 100_000 / fps) <= 5


def test_a_rate_that_no_viewer_plays_is_refused_before_any_work(tmp_path):
    with pytest.raises(ArgumentError, match="at most 50"):
        open_writer(tmp_path / "x.gif", width=2, height=2, fps=60)


@pytest.mark.parametrize("name", NAMES)
def test_metadata_come_back(tmp_path, name):
    metadata = {"comment": "seed=5", "prompt": "ünï 'quoted' %d\nline"}
    path = write(str(tmp_path / name) + "/" * name.endswith("/"), moving(), metadata=metadata).path
    if name in VIDEOS:
        with open_video(path) as video:
            assert metadata.items() <= video.info.metadata.items()
    elif path.is_dir():
        with Image.open(path / "frame_000006.png") as image:
            text = image.text
        assert (text["Comment"], text["prompt"], text["fps"]) == (*metadata.values(), "8")
    elif name == "out.gif":
        with Image.open(path) as image:
            assert image.info["comment"].decode() == "seed=5\nprompt=" + metadata["prompt"]
    else:
        assert b"seed=5\nprompt=" + metadata["prompt"].encode() in path.read_bytes()
        with Image.open(path) as image:
            assert image.getexif()[0x010E].startswith("seed=5\n")


@pytest.mark.parametrize("name", ["out.gif", "out.webp"])
def test_animations_repeat_for_ever(tmp_path, name):
    with Image.open(write(tmp_path / name, moving()).path) as image:
        assert image.is_animated
        assert image.info["loop"] == 0


def test_mp4_starts_with_its_index(tmp_path):
    in_file = write(tmp_path / "a.mp4", moving()).path.read_bytes()
    in_memory = write(None, moving()).getvalue()
    assert in_file == in_memory
    assert 0 < in_file.find(b"moov") < in_file.find(b"mdat")


SCRIPT = """
import hashlib, sys
from pathlib import Path
from tests.media.writers.samples import NAMES, moving, write
folder = Path(sys.argv[1])
for name in NAMES:
    path = write(str(folder / name) + "/" * name.endswith("/"), moving(130, 98, 12), metadata={"comment": "c"}).path
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    print(name, hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest())
"""


def test_bytes_depend_neither_on_the_number_of_processors_nor_on_what_memory_held_before(tmp_path):
    results = []
    for count, fill in ((1, 85), (None, 170)):
        folder = tmp_path / str(fill)
        folder.mkdir()
        cpus = sorted(os.sched_getaffinity(0))[:count] if hasattr(os, "sched_setaffinity") else None
        pin = f"import os; os.sched_setaffinity(0, {cpus})\n" if cpus else ""
        results.append(
            subprocess.run(
                [sys.executable, "-c", pin + SCRIPT, str(folder)],
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "MALLOC_PERTURB_": str(fill)},  # glibc fills new memory with it
            ).stdout
        )
    assert results[0] == results[1]
    assert len(set(results[0].split())) == 12


def test_quality_follows_the_settings(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
    for name, kind, fine, coarse in [
        ("a.mp4", "h264", {"crf": 5}, {"crf": 45}),
        ("a.webm", "webm", {"crf": 5}, {"crf": 60}),
        ("a.webp", "webp", {"quality": 99}, {"quality": 5}),
        ("a.gif", "gif", {"colors": 256}, {"colors": 4}),
        ("a/", "png-folder", {"compress": 0}, {"compress": 9}),
    ]:
        sizes = []
        for options in (fine, coarse):
            target = str(tmp_path / name) + "/" * name.endswith("/")
            path = write(target, noise if name != "a/" else moving(), options={"type": kind, **options}).path
            sizes.append(sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path])))
        assert sizes[0] > 1.1 * sizes[1], name


def test_lossless_webp(tmp_path):
    frames = moving()
    assert np.array_equal(
        read(write(tmp_path / "a.webp", frames, options={"type": "webp", "lossless": True}).path), frames
    )


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.mp4", {"crf": 99}, "crf is 0"),
        ("a.mp4", {"threads": 0}, "threads"),
        ("a.mp4", {"pixel_format": "rgb24"}, "rgb24"),
        ("a.mp4", {"crff": 17}, "crff"),
        ("a.webm", {"type": "webm", "crf": -1}, "crf is 0"),
        ("a.webm", {"type": "webm", "speed": 9}, "speed"),
        ("a.gif", {"type": "gif", "colors": 1}, "colors"),
        ("a.webp", {"type": "webp", "quality": 101}, "quality"),
        ("a/", {"type": "png-folder", "compress": 10}, "compress"),
    ],
)
def test_wrong_settings_are_named(tmp_path, name, options, words):
    with pytest.raises(ConfigurationError, match=words):
        open_writer(str(tmp_path / name) + "/" * name.endswith("/"), width=4, height=4, fps=8, options=options)


def test_settings_of_another_format_do_not_apply(tmp_path):
    assert len(read(write(tmp_path / "a.webm", moving(), options={"type": "h264", "crf": 1}).path)) == 6


def test_the_catalogue_knows_every_writer():
    from i2vgen_ms import catalogue
    from i2vgen_ms.media.writers import output

    assert list(catalogue.names("writers")) == list(output._PARTS)
    for name in output._PARTS:
        part = catalogue.build("writers", {"type": name})
        assert [output._BY_SUFFIX[suffix] for suffix in part.suffixes] == [name] * len(part.suffixes)
