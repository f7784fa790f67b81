"""Sound goes from a clip into the written file as it is, in step with the picture; or a warning says why not."""

from __future__ import annotations

import dataclasses
import io
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest

from i2vgen_ms.errors import ArgumentError, OutputError
from i2vgen_ms.media.audio import CARRIED, AudioWarning, audio_for, misfit
from i2vgen_ms.media.clip import Clip, read_clip
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.media.writers import open_writer
from i2vgen_ms.media.writers.h264 import H264
from tests.media.writers.samples import moving, write

RATE = 48000
CLICK = 1.0  # seconds


def filmed(
    container="mp4", codec="aac", video="mpeg4", seconds=2.0, fps=8, first=0, times=None, gain=1.0, sound=0.0
) -> bytes:
    """A file with a click at CLICK; its picture starts at frame `first`, or its frames are shown at `times`.

    The sound lasts as long as the picture, or `sound` seconds.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(video, rate=fps)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        track = out.add_stream(codec, rate=RATE)
        for index, frame in enumerate(moving(frames=round(seconds * fps))):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = times[index] if times else index + first, Fraction(1, fps)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
        samples = np.zeros(round((sound or seconds + first / fps) * RATE), np.float32)
        burst = np.sin(np.arange(2400) / 4, dtype=np.float32)
        samples[round(CLICK * RATE) :][:2400] = burst
        resampler = av.AudioResampler(format=track.codec_context.format.name, layout="mono", rate=RATE)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            for part in resampler.resample(frame):
                out.mux(track.encode(part))
        out.mux(track.encode(None))
    return file.getvalue()


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(filmed(), max_frames=None)


def heard(data: bytes) -> tuple[str, float, float]:
    """Codec, time of the click, and time of the end of all sound that is played."""
    with av.open(io.BytesIO(data)) as container:
        codec = container.streams.audio[0].codec_context.codec.canonical_name
        click, end = None, 0.0
        for frame in container.decode(audio=0):
            sound = frame.to_ndarray() if frame.format.is_planar else frame.to_ndarray().reshape(frame.samples, -1).T
            sound = np.abs(sound.astype(np.float64)).max(axis=0) / (2**15 if frame.format.name[:3] == "s16" else 1)
            if click is None and sound.max() > 0.2:
                click = frame.time + int(np.argmax(sound > 0.2)) / frame.sample_rate
            end = frame.time + frame.samples / frame.sample_rate
    return codec, click, end


def packets(data: bytes, kind: str) -> list:
    with av.open(io.BytesIO(data)) as container:
        stream = getattr(container.streams, kind)[0]
        return [
            (bytes(packet), float(packet.pts * packet.time_base)) for packet in container.demux(stream) if packet.size
        ]


def length(data: bytes) -> float:
    with av.open(io.BytesIO(data)) as container:
        return container.duration / av.time_base


SOURCES = [
    *[("mp4", "aac"), ("mp4", "libmp3lame"), ("mp4", "libopus"), ("matroska", "aac"), ("webm", "libopus")],
    *[("avi", "libmp3lame"), ("matroska", "flac"), ("mov", "pcm_s16le")],
]


@pytest.mark.parametrize(("container", "codec"), SOURCES)
@pytest.mark.parametrize("max_frames", [None, 11])
def test_the_packets_are_carried_as_they_are_and_in_step(tmp_path, container, codec, max_frames):
    source = filmed(container, codec, "libvpx-vp9" if container == "webm" else "mpeg4")
    clip = read_clip(source, max_frames=max_frames)
    seconds = clip.count / 8
    assert clip.audio.seconds == seconds == (11 / 8 if max_frames else 2)
    kept = audio_for(clip, frames=clip.count, fps=clip.fps)
    took = [suffix for suffix in CARRIED if not misfit(kept, suffix)]
    assert took == {
        "opus": [".mp4", ".mkv", ".webm"],
        "pcm_s16le": [".mkv"],
    }.get(kept.codec, [".mp4", ".mkv"])
    for suffix in took:
        path = write(tmp_path / f"out{suffix}", clip.frames, audio=kept).path
        data = path.read_bytes()
        original, copied = packets(source, "audio"), packets(data, "audio")
        assert [data for data, _ in copied] == [data for data, _ in original][: len(copied)]
        assert np.allclose([at for _, at in copied], [at for _, at in original[: len(copied)]], atol=2e-3)
        assert copied[-1][1] < seconds
        assert len(copied) == len(original) or original[len(copied)][1] >= seconds - 2e-3
        name, click, end = heard(data)
        assert name == kept.codec
        assert click == pytest.approx(CLICK + (0.024 if container == "avi" else 0), abs=0.004)  # AVI knows no delay
        assert end == pytest.approx(seconds, abs=0.1 if kept.codec == "flac" else 0.03)
        assert length(data) == pytest.approx(seconds, abs=0.03)
        assert sorted(at for _, at in packets(data, "video"))[:2] == [0, 0.125]
        again = read_clip(path, max_frames=None)
        assert (again.fps, again.count, again.has_audio) == (8, clip.count, True)
        assert again.audio.codec == kept.codec


def test_the_picture_is_the_same_with_and_without_sound(clip):
    with_sound = write(None, clip.frames, audio=clip.audio).getvalue()
    without = write(None, clip.frames).getvalue()
    assert packets(with_sound, "video") == packets(without, "video")
    assert b"mp4a" in with_sound
    assert b"mp4a" not in without


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_the_bytes_are_the_same_on_every_run(tmp_path, suffix):
    files = []
    for name in ("a", "b"):
        clip = read_clip(filmed(codec="libopus", seconds=1.5), max_frames=None)
        files.append(write(tmp_path / (name + suffix), clip.frames, audio=clip.audio).path.read_bytes())
    assert files[0] == files[1]


def test_sound_and_picture_lie_side_by_side():
    clip = read_clip(filmed(seconds=24, fps=2), max_frames=None)  # FFmpeg waits 10 seconds for a track to go on
    file = io.BytesIO(write(None, clip.frames, audio=clip.audio, fps=2).getvalue())
    with av.open(file) as container:
        order = sorted(
            (packet.pos, packet.stream.type, float(packet.dts * packet.time_base))
            for packet in container.demux()
            if packet.size
        )
    heard_until, apart = 0.0, []
    for _, kind, at in order:
        heard_until = max(heard_until, at) if kind == "audio" else heard_until
        apart.append(abs(at - heard_until) if kind == "video" else 0)
    assert max(apart) < 1.1


def test_sound_that_ends_before_the_picture_starts_is_none():
    clip = read_clip(filmed("matroska", first=40, sound=2.0), max_frames=None)
    assert (clip.count, clip.audio) == (16, None)
    assert clip.audio_problem == "none of it belongs to the frames that are read"


def test_a_picture_that_starts_late_takes_the_sound_with_it(tmp_path):
    clip = read_clip(filmed("matroska", first=4), max_frames=None)
    for suffix in (".mp4", ".mkv"):
        data = write(tmp_path / f"out{suffix}", clip.frames, audio=clip.audio).path.read_bytes()
        assert heard(data)[1] == pytest.approx(CLICK - 0.5, abs=0.004)
    assert sum(packet.start <= 0 for packet in clip.audio.packets) == 2


def test_sound_that_is_shorter_or_longer_than_the_video(clip):
    longer = write(None, np.repeat(clip.frames, 2, axis=0), audio=clip.audio).getvalue()
    assert length(longer) == pytest.approx(4)
    assert heard(longer)[1:] == pytest.approx((CLICK, 2), abs=0.03)
    shorter = write(None, clip.frames[:9], audio=clip.audio).getvalue()
    assert length(shorter) == pytest.approx(9 / 8)
    assert heard(shorter)[2] == pytest.approx(9 / 8, abs=0.03)
    long_packets = read_clip(filmed("matroska", "flac"), max_frames=None).audio
    assert length(write(None, clip.frames, fps=64, audio=long_packets).getvalue()) == pytest.approx(0.25)


def test_a_rate_or_length_of_its_own_leaves_the_sound_out(clip):
    assert audio_for(clip, frames=16, fps=8) is clip.audio
    assert audio_for(clip, frames=16, fps=8.1) is clip.audio  # 0.025 seconds
    with pytest.warns(AudioWarning, match="24 frames a second, and the clip 8; fps='source'") as caught:
        assert audio_for(clip, frames=16, fps=24) is None
    assert caught[0].filename == __file__
    with pytest.warns(AudioWarning, match="15 frames, and the clip 16"):
        assert audio_for(clip, frames=15, fps=8) is None


def test_silent_clips_say_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (write(None, moving()).getvalue(), moving()):
            clip = read_clip(source, max_frames=None)
            assert clip.audio is None
            assert not clip.has_audio
            assert audio_for(clip, frames=6, fps=99) is None


@pytest.mark.parametrize("name", ["out.webm", "out.gif", "out.webp", "frames/"])
def test_formats_that_cannot_hold_it_say_so_before_the_work(tmp_path, clip, name):
    target = str(tmp_path / name) + "/" * name.endswith("/")
    message = "opus, vorbis, and not aac; use .mp4 or .mkv" if name == "out.webm" else "holds none; .mp4, .mkv"
    with pytest.warns(AudioWarning, match=message) as caught:
        output = open_writer(target, width=48, height=32, fps=8, audio=clip.audio)
    assert caught[0].filename == __file__
    with output:
        for frame in clip.frames:
            output.write(frame)
    assert output.path.exists()
    if name == "out.webm":
        assert not read_clip(output.path, max_frames=None).has_audio


def test_a_writer_of_somebody_elses_gets_sound_only_if_it_says_so(clip):
    class Silent(H264):
        carries_audio = False

    with pytest.warns(AudioWarning, match="the writer Silent holds none"):
        data = write(None, clip.frames, part=Silent(), audio=clip.audio).getvalue()
    assert not read_clip(data, max_frames=None).has_audio
    assert read_clip(write(None, clip.frames, part=H264(), audio=clip.audio).getvalue(), max_frames=1).has_audio


def test_sound_that_cannot_be_written_is_found_out_before_the_work(clip, tmp_path):
    twice = clip.audio.packets[:1] * 2 + clip.audio.packets
    for broken in (
        dataclasses.replace(clip.audio, template=b"\0" * 50),
        dataclasses.replace(clip.audio, packets=twice),
    ):
        with pytest.warns(AudioWarning, match="cannot be written to .mp4"):
            write(tmp_path / "out.mp4", clip.frames, audio=broken)
        assert read_clip(tmp_path / "out.mp4", max_frames=None).count == 16


def test_times_that_run_backwards_leave_the_sound_out():
    data = bytearray(filmed("matroska", codec="pcm_s16le"))
    samples = next(sound for sound, _ in packets(bytes(data), "audio") if any(sound))
    at = data.index(samples) - 3  # the block's time stands before its flags
    data[at : at + 2] = bytes(2)
    clip = read_clip(bytes(data), max_frames=None)
    assert (clip.count, clip.audio, clip.audio_problem) == (16, None, "its times run backwards")


def test_a_rate_that_varies_leaves_the_sound_out():
    frames = [0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31]
    clip = read_clip(filmed(times=frames), max_frames=None)
    assert clip.count == 16
    assert clip.audio is None
    with pytest.warns(AudioWarning, match=r"the frame rate varies, .* \d\.\d\d s apart"):
        assert audio_for(clip, frames=16, fps=clip.fps) is None
    slightly = [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
    assert read_clip(filmed(times=slightly), max_frames=None).audio is not None


def test_limits_and_damage_take_the_sound_and_leave_the_picture(monkeypatch):
    source = filmed()
    clip = read_clip(source, max_frames=None, limits=Limits(max_audio_bytes=100))
    assert (clip.count, clip.audio, clip.audio_problem) == (16, None, "it takes more than 100 bytes")
    with pytest.warns(AudioWarning, match="more than 100 bytes"):
        audio_for(clip, frames=16, fps=8)
    room = sum(len(sound) for sound, _ in packets(source, "audio")) // 2
    assert read_clip(source, max_frames=None, limits=Limits(max_audio_bytes=room)).audio is None
    assert read_clip(source, max_frames=2, limits=Limits(max_audio_bytes=room)).audio is not None
    monkeypatch.setattr("i2vgen_ms.media.audio._template", lambda *_: 1 / 0)
    clip = read_clip(source, max_frames=None)
    assert (clip.count, clip.audio, clip.audio_problem) == (16, None, "it is damaged: division by zero")


def test_damaged_files_give_sound_that_can_be_written_or_none():
    source = filmed("matroska")
    rng = np.random.default_rng(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        for _ in range(30):
            broken = bytearray(source)
            for position in rng.integers(400, len(source), 8):
                broken[position] ^= 0x55
            try:
                clip = read_clip(bytes(broken), max_frames=9)
            except ValueError:
                continue
            audio = audio_for(clip, frames=clip.count, fps=clip.fps or 8)
            data = write(None, clip.frames, fps=clip.fps or 8, audio=audio).getvalue()
            assert read_clip(data, max_frames=None).count == clip.count


def test_a_failure_leaves_nothing_behind(tmp_path, clip):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    output = open_writer(path, width=48, height=32, fps=8, audio=clip.audio)
    with pytest.raises(ArgumentError, match="uint8 array"), output:
        output.write(clip.frames[0, 1:])
    with pytest.raises(OutputError, match="no frame"), open_writer(path, width=48, height=32, fps=8, audio=clip.audio):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    assert path.read_bytes() == b"precious"
