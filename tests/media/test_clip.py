"""Everything that shows a moving picture becomes one kind of clip at full precision, and stays as it was."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from i2vgen_ms.errors import ArgumentError, MediaLimitError, NonFiniteError, UnreadableMediaError
from i2vgen_ms.media.clip import Clip, read_clip
from i2vgen_ms.media.frames import to_pixels, to_uint8
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.media.video import open_video, read_video
from tests.media.test_video import muxed, rotated
from tests.media.writers.samples import moving, write


@pytest.fixture(scope="module")
def mp4() -> bytes:
    return write(None, moving(frames=9)).getvalue()


def test_files_are_read_by_the_reader(mp4, tmp_path):
    path = tmp_path / "a clip.mp4"
    path.write_bytes(mp4)
    expected = read_video(mp4, max_frames=9).frames
    for source in (path, str(path), mp4, io.BytesIO(mp4)):
        clip = read_clip(source, max_frames=None)
        assert np.array_equal(clip.frames, expected)
        assert (clip.fps, clip.truncated, clip.left_out, clip.has_audio) == (8, False, 0, False)
        assert (clip.count, clip.height, clip.width) == expected.shape[:3]
    with pytest.raises(UnreadableMediaError, match=r"missing\.mp4"):
        read_clip(tmp_path / "missing.mp4", max_frames=None)


def test_another_reader_can_be_given():
    asked = []

    def reader(source, *, max_frames, limits):
        asked.append((source, max_frames, limits.max_frames))
        return Clip(frames=moving())

    assert read_clip("x.y4m", max_frames=5, reader=reader).count == 6
    read_clip("x.y4m", max_frames=None, reader=reader)
    assert asked == [("x.y4m", 5, 4096), ("x.y4m", 4096, 4096)]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm", "out.gif"])
@pytest.mark.parametrize(("frames", "taken", "left_out"), [(1, 1, 0), (32, 32, 0), (33, 32, 1), (75, 32, 43)])
def test_how_many_frames_are_left_out(tmp_path, name, frames, taken, left_out):
    clip = read_clip(write(tmp_path / name, moving(16, 16, frames)).path, max_frames=32)
    assert (clip.count, clip.truncated, clip.left_out) == (taken, left_out > 0, left_out)
    assert float(clip.fps) == pytest.approx(8, rel=0.05)  # a GIF of one frame: 0.12 seconds


def test_damage_behind_the_frames_that_are_read_does_no_harm(mp4, monkeypatch):
    data = write(None, moving(frames=90)).getvalue()
    clip = read_clip(data[: len(data) * 2 // 3], max_frames=2)
    assert (clip.count, clip.truncated) == (2, True)
    with open_video(mp4) as video:
        monkeypatch.setattr("i2vgen_ms.media.video.open_container", lambda *_: 1 / 0)
        assert video.left_out(2) is None


def test_frames_that_the_file_does_not_show_are_not_counted(mp4):
    at = mp4.index(b"elst") + 12
    shown = mp4[:at] + struct.pack(">I", struct.unpack(">I", mp4[at : at + 4])[0] * 6 // 9) + mp4[at + 4 :]
    count = read_clip(shown, max_frames=None).count
    assert count < 9
    assert read_clip(shown, max_frames=2).left_out == count - 2


def test_the_rest_is_unknown_when_counting_takes_too_long(mp4):
    with open_video(mp4) as video:
        assert video.left_out(2) == 7
        video._limits = Limits(decode_seconds=1e-9)
        assert video.left_out(2) is None


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotated_files_are_upright(mp4, turns):
    clip = read_clip(rotated(mp4, turns), max_frames=4)
    assert np.array_equal(clip.frames, np.rot90(read_clip(mp4, max_frames=4).frames, turns, axes=(1, 2)))
    assert (clip.height, clip.width) == ((48, 32) if turns % 2 else (32, 48))


def test_variable_rate_and_odd_size():
    clip = read_clip(muxed(moving(47, 31), times=[0, 1, 2, 10, 11, 23], codec="mpeg4"), max_frames=9)
    assert clip.frames.shape == (6, 31, 47, 3)
    assert isinstance(clip.fps, Fraction)
    assert float(clip.fps) == pytest.approx(2, rel=0.05)
    assert read_clip(write(None, moving(47, 31)).getvalue(), max_frames=9).frames.shape == (6, 32, 48, 3)


def test_an_array_is_rgb_and_copied():
    frames = moving()
    before = frames.copy()
    clip = read_clip(frames, max_frames=4)
    assert np.array_equal(clip.frames, before[:4])
    assert (clip.fps, clip.truncated, clip.left_out, clip.has_audio) == (None, True, 2, False)
    clip.frames[:] = 0
    assert np.array_equal(frames, before)
    assert np.array_equal(read_clip(frames[:, ::-2, ::-1], max_frames=None).frames, before[:, ::-2, ::-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8])
@pytest.mark.parametrize("order", ["c f h w", "f h w c", "1 c f h w"])
def test_a_tensor_keeps_its_precision_in_either_order(dtype, order):
    frames = torch.rand(6, 5, 4, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    frames = torch.from_numpy(moving(4, 5)) if dtype is torch.uint8 else frames.to(dtype)
    given = frames.clone() if order == "f h w c" else frames.permute(3, 0, 1, 2).contiguous()
    given = given[None] if order.startswith("1") else given
    before = given.clone()
    clip = read_clip(given, max_frames=5)
    assert (clip.count, clip.height, clip.width, clip.left_out) == (5, 5, 4, 1)
    if dtype is torch.uint8:
        assert np.array_equal(clip.frames, frames[:5].numpy())
        clip.frames[:] = 7
    else:
        assert clip.frames.dtype is torch.float32
        assert torch.equal(clip.frames, frames[:5].float())
        clip.frames.fill_(7)
    assert torch.equal(given, before)


def test_overshoot_is_clamped_and_gradients_do_not_matter():
    pixels = torch.linspace(-1.5, 1.5, 2 * 4 * 5 * 3).reshape(2, 4, 5, 3).requires_grad_()
    clip = read_clip(pixels, max_frames=None)
    assert torch.equal(clip.frames, pixels.detach().clamp(-1, 1))
    assert not clip.frames.requires_grad


def test_our_own_results_come_back():
    pixels = torch.rand(3, 4, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1  # output_type='pt'
    frames = to_uint8(pixels.permute(1, 2, 3, 0))  # output_type='frames'
    assert torch.equal(read_clip(pixels, max_frames=None).frames, pixels.permute(1, 2, 3, 0))
    assert np.array_equal(to_uint8(to_pixels(read_clip(frames, max_frames=None).frames)), frames)


def test_lists_of_pictures():
    frames = moving()
    mixed = [Image.fromarray(frames[0]), frames[1], Image.fromarray(frames[2]).convert("RGBA"), *frames[3:]]
    clip = read_clip(mixed, max_frames=None)
    assert np.array_equal(clip.frames, frames)
    assert np.array_equal(read_clip(tuple(mixed), max_frames=2).frames, frames[:2])
    assert read_clip(mixed, max_frames=2).left_out == 4
    clip.frames[:] = 0
    assert mixed[1].any()


WRONG = [
    (np.zeros((4, 5, 3), np.uint8), ArgumentError, "shape .f, h, w, 3., uint8, RGB, not .4, 5, 3. uint8"),
    (np.zeros((2, 4, 5, 4), np.uint8), ArgumentError, "not .2, 4, 5, 4."),
    (np.zeros((3, 2, 4, 5), np.uint8), ArgumentError, "not .3, 2, 4, 5."),
    (np.zeros((2, 4, 5, 3)), ArgumentError, "as a torch tensor"),
    (np.zeros((0, 4, 5, 3), np.uint8), ArgumentError, "at least one frame"),
    (np.zeros((2, 4, 0, 3), np.uint8), ArgumentError, "one pixel"),
    (torch.zeros(3, 4, 5, 3), ArgumentError, "could be"),
    (torch.zeros(2, 4, 5, 6), ArgumentError, "not .2, 4, 5, 6."),
    (torch.zeros(4, 5, 3), ArgumentError, "not .4, 5, 3."),
    (torch.zeros(2, 3, 2, 4, 5), ArgumentError, "not .2, 3, 2, 4, 5."),
    (torch.zeros(3, 0, 4, 5), ArgumentError, "at least one frame"),
    (torch.zeros(2, 4, 5, 3, dtype=torch.int64), ArgumentError, "int64"),
    (torch.full((2, 4, 5, 3), 255.0), ArgumentError, r"255\.\.255"),
    (torch.full((2, 4, 5, 3), float("nan")), NonFiniteError, "NaN"),
    (torch.tensor([0.0, float("inf"), 0.0]).expand(2, 4, 5, 3), NonFiniteError, "NaN"),
    ([], ArgumentError, "empty"),
    ([moving()[0], moving(50)[1]], ArgumentError, "frame 0 is 48x32, frame 1 is 50x32"),
    ([moving()[0], moving()[0, :, :, 0]], ArgumentError, "frame 1 of the list"),
    (["a.png"], ArgumentError, "frame 0 of the list .* str"),
    (5, ArgumentError, "int"),
    (None, ArgumentError, "NoneType"),
]


@pytest.mark.parametrize(("source", "error", "message"), WRONG, ids=range(len(WRONG)))
def test_what_is_no_clip_is_refused(source, error, message):
    with pytest.raises(error, match=message):
        read_clip(source, max_frames=None)


@pytest.mark.parametrize("count", [0, -1, 4097])
def test_max_frames_is_checked_for_every_kind(count, mp4):
    for source in (mp4, moving(), torch.zeros(3, 2, 4, 5), [moving()[0]]):
        with pytest.raises(ArgumentError, match=f"1 to 4096, not {count}"):
            read_clip(source, max_frames=count)


def test_limits_hold_for_every_kind(mp4):
    frames = moving(frames=9)
    kinds = (mp4, frames, torch.from_numpy(frames), list(frames), to_pixels(frames).permute(3, 0, 1, 2))
    for source in kinds:
        with pytest.raises(MediaLimitError, match="48x32"):
            read_clip(source, max_frames=None, limits=Limits(max_video_pixels=48 * 32 - 1))
        with pytest.raises(MediaLimitError, match="give max_frames"):
            read_clip(source, max_frames=None, limits=Limits(max_frames=8))
        assert read_clip(source, max_frames=8, limits=Limits(max_frames=8)).count == 8
        with pytest.raises(MediaLimitError, match="frames of 48x32 take more"):
            read_clip(source, max_frames=None, limits=Limits(max_clip_bytes=8 * 48 * 32 * 3))
    room = Limits(max_clip_bytes=2 * 48 * 32 * 3 * 4)
    assert read_clip(kinds[-1], max_frames=2, limits=room).count == 2
    with pytest.raises(MediaLimitError):
        read_clip(kinds[-1], max_frames=3, limits=room)
