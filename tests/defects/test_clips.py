"""Rows about the clip that goes into the second stage: its size, rate, length and sound, and lists of clips."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from i2vgen_ms.errors import ArgumentError, UnreadableMediaError
from i2vgen_ms.media.audio import AudioWarning
from i2vgen_ms.media.video import read_video
from i2vgen_ms.pipelines import ClipWarning, VideoToVideo, load
from i2vgen_ms.runtime.sizes import latent_size
from tests import second_stage
from tests.defects.conftest import make_second
from tests.media.test_audio import filmed
from tests.media.writers.samples import write
from tests.oracle import published, relative_error
from tests.st_unet import networks

CALL: dict[str, Any] = {"steps": 1, "output_type": "pt", "progress": False}
QUICK: dict[str, Any] = {"steps": 1, "progress": False}
NTSC: Any = Fraction(30000, 1001)


@contextmanager
def encoded(pipe: VideoToVideo) -> Iterator[list[torch.Tensor]]:
    """The pixels `1 f h w c` that are encoded meanwhile, chunk by chunk."""
    seen: list[torch.Tensor] = []
    hook = pipe.networks.autoencoder.encoder.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].clone())
    )
    try:
        yield seen
    finally:
        hook.remove()


@contextmanager
def sampled(pipe: VideoToVideo) -> Iterator[list[tuple[int, ...]]]:
    """The shapes `b c f h w` of what the network makes meanwhile, for both branches of guidance."""
    seen: list[tuple[int, ...]] = []
    hook = pipe.networks.st_unet.register_forward_hook(lambda module, args, out: seen.append(tuple(out.shape)))
    try:
        yield seen
    finally:
        hook.remove()


def rate_of(path: Path) -> Fraction | None:
    with av.open(str(path)) as container:
        return container.streams.video[0].average_rate


@pytest.mark.parametrize(("fps", "expected"), [(None, 8), (12, 12), ("source", NTSC)])
def test_b6_a_clip_is_written_at_8_a_second_unless_told_otherwise(
    second: VideoToVideo, clip: np.ndarray, tmp_path: Path, fps: Any, expected: Any
) -> None:
    """B6: every clip is written at 8 frames a second, whatever its own rate is; `fps` says another one, or keeps it."""
    source = tmp_path / "in.mp4"
    write(source, clip, fps=NTSC)
    second(str(source), output=tmp_path / "out.mp4", fps=fps, **QUICK)
    assert rate_of(source) == NTSC
    assert rate_of(tmp_path / "out.mp4") == expected


def striped() -> np.ndarray:
    """A frame of 48x24, black but for the square in its middle, which is white."""
    frame = np.zeros((1, 24, 48, 3), np.uint8)
    frame[:, :, 12:36] = 255
    return frame


def test_b7_a_clip_is_squashed_to_the_models_size_as_published(second: VideoToVideo, clip: np.ndarray) -> None:
    """B7: any aspect becomes that of the output, without antialiasing: the same pixels by default."""
    with encoded(second) as seen:
        video = second(clip, **CALL).tensor
    assert video.shape == (3, 2, 16, 32)
    pixels = (torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    expected = F.interpolate(pixels, size=(16, 32), mode="bilinear").permute(0, 2, 3, 1)
    assert torch.equal(torch.cat(seen, dim=1)[0], expected)


@pytest.mark.parametrize(
    ("given", "size", "columns", "rows"),
    [
        ({"width": 24, "height": 24}, (24, 24), "black white black", "white white white"),
        ({"width": 24, "height": 24, "fit": "squash"}, (24, 24), "black white black", "white white white"),
        ({"width": 24, "height": 24, "fit": "crop"}, (24, 24), "white white white", "white white white"),
        ({"width": 24, "height": 24, "fit": "pad"}, (24, 24), "black white black", "black white black"),
        ({"width": 24, "height": 24, "fit": "keep"}, (24, 12), "black white black", "white white white"),
        ({"width": 96, "fit": "keep"}, (32, 16), "black white black", "white white white"),
    ],
)
def test_b7_width_height_and_fit_change_what_is_seen(
    second: VideoToVideo, given: dict[str, Any], size: tuple[int, int], columns: str, rows: str
) -> None:
    """B7: the size is always 1280x720, squashed; `width`, `height` and `fit` ask for another one, and another way.

    columns: what is seen on the left, in the middle and on the right of the middle row; rows: from top to bottom.
    """
    with encoded(second) as seen:
        video = second(striped(), **CALL, **given).tensor
    assert video.shape == (3, 1, size[1], size[0])
    pixels = seen[0][0, 0, : size[1], : size[0], 0]
    middle_row, middle_column = pixels[size[1] // 2], pixels[:, size[0] // 2]
    assert colours(middle_row) == columns
    assert colours(middle_column) == rows


def colours(line: torch.Tensor) -> str:
    """Its first, middle and last pixel in words."""
    words = ["black" if float(line[at]) < -0.8 else "white" if float(line[at]) > 0.8 else "grey" for at in (1, -2)]
    middle = float(line[len(line) // 2])
    return f"{words[0]} {'white' if middle > 0.8 else 'black'} {words[1]}"


FULL = [
    # (width, height) of the video; rows and columns of the latents that the network is given
    ((1280, 720), (90, 160)),
    ((1920, 1080), (138, 240)),
    ((576, 1024), (130, 72)),
    ((1280, 704), (90, 160)),
    ((1024, 576), (74, 128)),
    ((1366, 768), (98, 176)),
    ((16, 16), (2, 8)),
]


@pytest.mark.parametrize(("size", "latents"), FULL)
def test_b8_every_size_gets_latents_that_the_network_takes(size: tuple[int, int], latents: tuple[int, int]) -> None:
    """B8: heights other than 64 n + 16 and widths other than 64 n do not meet their skips. They are padded to such."""
    network = networks.ours("text", vertical_padding=[2, 1])
    assert latent_size(network, width=size[0], height=size[1], factor=8) == latents


@torch.no_grad()
def test_b8_the_published_network_crashes_where_ours_says_no() -> None:
    """B8: what is padded is what the published network cannot take, and nothing else."""
    theirs = published("video_to_video.modules.unet_v2v").Vid2VidSDUNet(
        **{**networks.PUBLISHED_SMALL, "num_res_blocks": 1, "attn_scales": [], "dim_mult": [1, 1, 1, 1]},
        use_checkpoint=False,
    )
    ours = networks.ours("text", vertical_padding=[2, 1])
    for rows, columns in [(10, 8), (9, 8), (11, 8), (12, 8), (16, 8), (18, 8), (10, 12), (10, 16)]:
        x, text = networks.latents(1, frames=1, height=rows, width=columns), torch.zeros(1, 1, 1024)
        if ours.takes(rows, columns):
            assert theirs.eval()(x, torch.tensor([1]), text).shape == x.shape
        else:
            with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
                theirs.eval()(x, torch.tensor([1]), text)


def test_b8_sizes_are_padded_after_encoding_and_cut_after_decoding(tmp_path: Path, clip: np.ndarray) -> None:
    """B8: the network is given the padded latents, the file has the size that was asked for."""
    pipe = load(second_stage.make(tmp_path, levels=4, max_frames=2, latent_hei=10, latent_wid=8), device="cpu")
    for size, rows, columns in [((64, 80), 10, 8), ((64, 56), 10, 8), ((64, 128), 18, 8), ((70, 64), 10, 16)]:
        with sampled(pipe) as seen:
            frames = pipe(clip, width=size[0], height=size[1], **{**CALL, "output_type": "frames"}).frames
        assert seen == [(2, 4, 2, rows, columns)], size
        assert frames.shape == (2, size[1], size[0], 3)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_b9_whole_clips_are_decoded_in_chunks_of_at_most_what_is_said(
    second: VideoToVideo, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """B9: one frame makes no chunk at all and fails, and three make one chunk of three, where two were meant."""
    source = np.concatenate([clip, 255 - clip, clip])[:count]
    whole = second(source, max_frames=5, **CALL).tensor
    assert whole.shape == (3, count, 16, 32)
    autoencoder = second.networks.autoencoder
    frame = (autoencoder.decoder.peak_values + 2 * 3) * 16 * 32 * 4
    monkeypatch.setattr(autoencoder, "chunk_bytes", 2 * frame + frame // 2)
    sizes: list[int] = []
    hook = autoencoder.decoder.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[1]))
    try:
        again = second(source, max_frames=5, **CALL).tensor
    finally:
        hook.remove()
    assert sizes == [2] * (count // 2) + [1] * (count % 2)
    assert relative_error(again, whole) <= 1e-5


@pytest.mark.parametrize("fps", [1, 8, NTSC, 120])
def test_b13_every_frame_is_taken_from_the_first_whatever_the_rate(second: VideoToVideo, fps: Any) -> None:
    """B13: frames are taken at a stride of two rates that are always equal; were they not, the first is lost."""
    source = np.full((5, 16, 32, 3), 20, np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None] * 40
    with encoded(second) as seen:
        second(write(None, source, fps=fps).getvalue(), max_frames=5, **CALL)
    levels = [float((chunk.mean() + 1) * 127.5) for chunk in torch.cat(seen, dim=1).unbind(1)]
    assert levels == pytest.approx([20, 60, 100, 140, 180], abs=3)


def test_b13_a_file_without_a_rate(second: VideoToVideo, clip: np.ndarray, tmp_path: Path) -> None:
    """B13: a rate of 0 is divided by. It is written at the configuration's, and 'source' says that there is none."""
    source = without_rate(clip)
    assert read_video(source, max_frames=2).fps is None
    second(source, output=tmp_path / "out.mp4", **QUICK)
    assert rate_of(tmp_path / "out.mp4") == 8
    with pytest.raises(ArgumentError, match="fps='source', but the clip does not say its rate; give a number"):
        second(source, fps="source", **CALL)


def without_rate(frames: np.ndarray) -> bytes:
    """An MP4 whose frames have no duration."""
    file = io.BytesIO()
    container: Any
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuvj420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(file.getvalue())
    at = data.index(b"stts") + 16  # of the table's one entry: how long each frame is shown
    data[at : at + 4] = bytes(4)
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "nothing.mp4"),
        (b"", "in.mp4"),
        (b"not a video at all", "in.mp4"),
        (write(None, np.zeros((1, 16, 16, 3), np.uint8)).getvalue()[:900], "in.mp4"),
    ],
    ids=["missing", "empty", "text", "cut"],
)
def test_b14_what_cannot_be_read_is_named(
    second: VideoToVideo, tmp_path: Path, content: bytes | None, message: str
) -> None:
    """B14: an unreadable path becomes an empty list of frames, and an error about stacking tensors."""
    if content is not None:
        (tmp_path / "in.mp4").write_bytes(content)
    target = tmp_path / "out.mp4"
    with pytest.raises(UnreadableMediaError, match=message):
        second({"video_path": str(tmp_path / message)}, output=target, **QUICK)
    assert not target.exists()


def test_b14_long_clips_are_cut_as_published_with_a_warning_or_worked_on_whole(
    second: VideoToVideo, clip: np.ndarray
) -> None:
    """B14: frames beyond the model's number are left out, and nobody is told; `window` works on all of them."""
    source = np.concatenate([clip, 255 - clip, clip])
    with pytest.warns(ClipWarning, match="left out: 4 frames after frame 2; give window=True"):
        cut = second(source, **CALL).tensor
    assert torch.equal(cut, second(source[:2], **CALL).tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sampled(second) as seen:
            whole = second(source, window=1, **CALL).tensor
        assert whole.shape == (3, 6, 16, 32)
        assert seen == [(2, 4, 2, 2, 4)] * 5
        assert second(source, max_frames=6, **CALL).tensor.shape == (3, 6, 16, 32)


def test_b14_sound_is_carried_along_or_a_warning_says_why_not(second: VideoToVideo, tmp_path: Path) -> None:
    """B14: the sound is dropped."""
    source, target = filmed(), tmp_path / "out.mp4"
    second(source, output=target, max_frames=16, **QUICK)
    sound, copied = (read_video(file, max_frames=16).audio for file in (source, target))
    assert sound is not None
    assert copied is not None
    assert [packet.data for packet in copied.packets] == [packet.data for packet in sound.packets]
    with pytest.warns(AudioWarning, match="12 frames a second, and the clip 8"):
        second(source, output=target, max_frames=16, fps=12, **QUICK)
    assert not read_video(target, max_frames=16).has_audio


def test_b18_b19_clips_of_a_list_are_each_on_their_own(clip: np.ndarray, tmp_path: Path) -> None:
    """B18: in a batch two clips are put one behind the other. B19: with batch_size in the file one is cut in two."""
    folder = make_second(tmp_path / "model", batch_size=2, max_frames=3)
    pipe = load(folder, device="cpu")
    assert pipe.configuration.batch_size == 2
    clips = [clip, np.concatenate([clip, clip])[:3, :, ::2], 255 - clip[:1], clip[:, :, ::-1].copy()]
    alone = load(make_second(tmp_path / "other", max_frames=3), device="cpu")
    assert alone.configuration.batch_size == 1
    results = pipe(clips, **CALL)
    assert [result.tensor.shape[1] for result in results] == [2, 3, 1, 2]
    for one, result in zip(clips, results, strict=True):
        assert torch.equal(result.tensor, alone(one, **CALL).tensor)
