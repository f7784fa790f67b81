"""Sizes, numbers of frames, ways to fit, rates and sound of video-to-video, as what stands in the written files.

Every row is one call with the clip that it describes; its expectation is compared with what PyAV reads back. `lines`
gives the same as a table to print.

The network and the sizes are small, and agree with the full ones modulo 64: the network takes heights of 64 n + 16 and
widths of 64 n, as the published one does, and everything else has to be padded and cut.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
import torch

from i2vgen_ms.pipelines import VideoToVideo, load
from tests import second_stage
from tests.media.writers.samples import moving

NTSC = Fraction(30000, 1001)
SOUND_RATE = 48000
APART = 0.03  # seconds: a packet of AAC is 0.021 long


class Clip(NamedTuple):
    """A file that goes in: size, number of frames, rate, name's ending, and the codec of its sound, if any."""

    width: int = 48
    height: int = 32
    frames: int = 2
    fps: int | Fraction = 8
    suffix: str = ".mp4"
    sound: str = ""


class Written(NamedTuple):
    """What a file holds. `seconds` and `sound_seconds` as a player counts them; without sound the latter is 0."""

    width: int
    height: int
    frames: int
    fps: Fraction
    seconds: float
    sound: str
    sound_seconds: float


class Row(NamedTuple):
    """A call, and what has to come out: a size, a number of frames at a rate, sound, and words of its warnings."""

    what: str
    clip: Clip
    given: dict[str, Any]
    size: tuple[int, int]
    frames: int = 2
    fps: int | Fraction = 8
    sound: str = ""
    warns: str = ""
    suffix: str = ".mp4"


def sized(what: str, width: int, height: int, file: tuple[int, int] | None = None) -> Row:
    """A row about a size; the file's size is another one only for odd sides."""
    return Row(what, Clip(), {"width": width, "height": height}, file or (width, height))


SHORT, LONG = Clip(frames=1), Clip(frames=33, fps=16, sound="aac")
FIVE, FILM = Clip(frames=5), Clip(frames=5, fps=25, sound="aac")
EIGHT = Clip(frames=5, sound="aac")
UPRIGHT = Clip(width=32, height=48)
BOUNDS = {"width": 128, "height": 80}
CUT = "left out: 1 frame after frame 32; give window=True"
SLOWER = "the sound is left out: the video has 8 frames a second, and the clip 25; fps='source' keeps both"

ROWS = [
    Row("the default, as 1280x720", Clip(), {}, (64, 80)),
    sized("as 1920x1080", 64, 56),
    sized("as 576x1024, upright", 64, 128),
    sized("as 1280x704", 128, 64),
    sized("as 1280x768", 64, 64),
    sized("as 854x480", 86, 96),
    sized("as 1080x1920, upright", 120, 64),
    sized("a pixel more than the network's", 65, 81, (66, 82)),
    sized("a pixel less than the network's", 63, 79, (64, 80)),
    sized("below the network's smallest", 8, 6),
    Row("1 frame", SHORT, {}, (64, 80), frames=1),
    Row("5 frames", FIVE, {}, (64, 80), frames=5),
    Row("33 frames, cut", LONG, {"fps": "source"}, (64, 80), 32, 16, "aac", CUT),
    Row("33 frames, windows", LONG, {"fps": "source", "window": True}, (64, 80), 33, 16, "aac"),
    Row("33 frames, windows of 5", LONG, {"fps": 16, "max_frames": 5, "window": 2}, (64, 80), 33, 16, "aac"),
    Row("5 frames, the first 3", FIVE, {"max_frames": 3}, (64, 80), 3, warns="left out: 2 frames after frame 3"),
    Row("squash", UPRIGHT, {"fit": "squash", **BOUNDS}, (128, 80)),
    Row("pad", UPRIGHT, {"fit": "pad", **BOUNDS}, (128, 80)),
    Row("crop", UPRIGHT, {"fit": "crop", **BOUNDS}, (128, 80)),
    Row("keep, upright", UPRIGHT, {"fit": "keep", **BOUNDS}, (54, 80)),
    Row("keep, lying", Clip(), {"fit": "keep"}, (64, 44)),
    Row("keep, 1 frame of 33x17", Clip(33, 17, 1), {"fit": "keep"}, (64, 34), frames=1),
    Row("8 a second in, 8 out", EIGHT, {}, (64, 80), 5, 8, "aac"),
    Row("25 a second in, 8 out", FILM, {}, (64, 80), 5, 8, "", SLOWER),
    Row("25 a second in, 25 out", FILM, {"fps": 25}, (64, 80), 5, 25, "aac"),
    Row("25 a second in, 'source'", FILM, {"fps": "source"}, (64, 80), 5, 25, "aac"),
    Row("29.97 a second in, 'source'", FILM._replace(fps=NTSC), {"fps": "source"}, (64, 80), 5, NTSC, "aac"),
    Row("a GIF of 10 a second, 'source'", Clip(frames=5, fps=10, suffix=".gif"), {"fps": "source"}, (64, 80), 5, 10),
    Row("the sound of 4 of 5 frames", FILM, {"fps": 25, "max_frames": 4}, (64, 80), 4, 25, "aac", "1 frame after"),
    Row("Opus into WebM", Clip(sound="libopus"), {}, (64, 80), sound="opus", suffix=".webm"),
    Row("AAC into WebM", EIGHT, {}, (64, 80), 5, 8, "", "opus, vorbis, and not aac; use .mp4 or .mkv", ".webm"),
    Row("FLAC into Matroska", Clip(frames=5, suffix=".mkv", sound="flac"), {}, (64, 80), 5, 8, "flac", suffix=".mkv"),
    Row("sound into a GIF", FILM._replace(fps=10), {"fps": "source"}, (64, 80), 5, 10, "", "holds none", ".gif"),
]


def film(path: Path, clip: Clip) -> Path:
    """Writes the clip with PyAV alone: moving gradients, and a tone that lasts as long as they do."""
    gif = clip.suffix == ".gif"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("gif" if gif else "mpeg4", rate=clip.fps)
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "rgb8" if gif else "yuv420p"
        track: Any = out.add_stream(clip.sound, rate=SOUND_RATE) if clip.sound else None
        for index, frame in enumerate(moving(clip.width, clip.height, clip.frames)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index, 1 / Fraction(clip.fps)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
        if track:
            count = round(clip.frames / clip.fps * SOUND_RATE)
            tone = np.sin(np.arange(count) / 9, dtype=np.float32)[None] / 2
            sound = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
            converter = av.AudioResampler(track.codec_context.format.name, "mono", SOUND_RATE, track.frame_size or 1024)
            for part in (*converter.resample(sound), *converter.resample(None)):
                out.mux(track.encode(part))
            out.mux(track.encode(None))
    return path


def read_back(path: Path) -> Written:
    """Decodes the whole file."""
    container: Any
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        size, rate = (frames[0].shape[1], frames[0].shape[0]), stream.average_rate
        seconds = container.duration / av.time_base
        assert all(frame.shape == frames[0].shape for frame in frames)
    codec, heard = "", 0.0
    with av.open(str(path)) as container:
        for track in container.streams.audio:
            codec = track.codec_context.codec.canonical_name
            ends = [frame.time + frame.samples / frame.sample_rate for frame in container.decode(track)]
            heard = max(ends)
    return Written(*size, len(frames), rate, seconds, codec, heard)


def called(pipe: VideoToVideo, row: Row, folder: Path) -> tuple[Written, str]:
    """What came out, and the warnings of the call."""
    source, target = film(folder / f"in{row.clip.suffix}", row.clip), folder / f"out{row.suffix}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipe(str(source), output=target, steps=1, progress=False, **row.given)
    return read_back(target), "; ".join(str(warning.message) for warning in caught)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[VideoToVideo]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield small(tmp_path_factory.mktemp("formats"))
    torch.set_num_threads(threads)


def small(folder: Path) -> VideoToVideo:
    """A network of the published number of levels; 32 frames and 64x80 are its 32 and 1280x720."""
    made = load(second_stage.make(folder, levels=4, max_frames=32, latent_hei=10, latent_wid=8), device="cpu")
    assert isinstance(made, VideoToVideo)
    return made


def test_the_network_takes_the_published_sizes_only(pipe: VideoToVideo) -> None:
    takes = pipe.networks.st_unet.takes
    assert [rows * 8 for rows in range(1, 40) if takes(rows, 8)] == [16, 80, 144, 208, 272]
    assert [columns * 8 for columns in range(1, 30) if takes(10, columns)] == [64, 128, 192]


@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
def test_what_came_out(pipe: VideoToVideo, row: Row, tmp_path: Path) -> None:
    got, said = called(pipe, row, tmp_path)
    assert (got.width, got.height) == row.size
    assert (got.frames, got.fps, got.sound) == (row.frames, row.fps, row.sound)
    seconds = float(row.frames / Fraction(row.fps))
    assert got.seconds == pytest.approx(seconds, abs=APART)
    assert got.sound_seconds == pytest.approx(seconds if row.sound else 0, abs=APART)
    assert re.search(re.escape(row.warns), said)
    assert bool(row.warns) == bool(said)


def lines(rows: list[Row] = ROWS) -> Iterator[str]:
    """The table of what goes in, what is asked and what came out, line by line."""
    yield "| what | in | asked | size | frames | fps | seconds | sound | warned |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    with tempfile.TemporaryDirectory() as folder:
        pipe = small(Path(folder) / "model")
        for row in rows:
            got, said = called(pipe, row, Path(folder))
            clip, asked = row.clip, ", ".join(f"{name}={value!r}" for name, value in row.given.items())
            source = f"{clip.width}x{clip.height}, {clip.frames} at {float(clip.fps):g}"
            heard = f"{got.sound} {got.sound_seconds:.2f} s" if got.sound else "none"
            cells = [
                *(row.what, source + (f", {clip.sound}" if clip.sound else ""), asked or "defaults"),
                *(f"{got.width}x{got.height}", str(got.frames), f"{float(got.fps):g}", f"{got.seconds:.3f}"),
                *(heard, said or "nothing"),
            ]
            yield f"| {' | '.join(cells)} |"


def test_the_table_has_a_line_for_every_row() -> None:
    came_out = "| the default, as 1280x720 | 48x32, 2 at 8 | defaults | 64x80 | 2 | 8 | 0.250 | none | nothing |"
    assert list(lines(ROWS[:1]))[2:] == [came_out]
