"""Clip: anything that shows a moving picture, as frames `f h w 3` in RGB.

Given a path, an http(s) address, bytes, a file object, an array, a tensor or a list of pictures; gives back new frames
and what is known about them. It does not know what the frames are for. PyAV is imported only when a file is read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from i2vgen_ms.errors import ArgumentError, MediaLimitError, NonFiniteError
from i2vgen_ms.media.limits import Limits, words
from i2vgen_ms.media.picture import read_picture

if TYPE_CHECKING:
    from i2vgen_ms.media.audio import Audio
    from i2vgen_ms.media.video import VideoInfo

# A decoder overshoots [-1, 1] a little; pixels of 0..255 given as floats leave it by far.
_FAR_OUTSIDE = 8.0
_ARRAY_SHAPE = "(f, h, w, 3), uint8, RGB"
_TENSOR_SHAPES = "(c, f, h, w) or (f, h, w, c), c = 3, RGB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Frames and where they come from.

    `frames`: `f h w 3` RGB, a uint8 array, or an fp32 CPU tensor within [-1, 1] when a floating-point tensor was given.
    `fps`: frames a second (their average when it varies); None when the source does not say.
    `truncated`: the source goes on after the last frame; `left_out` says by how many frames, None when unknown.
    `audio`: the sound of these frames as the file holds it; when there is a track and it cannot be used, None, and
    `audio_problem` says why (`media.audio.audio_for` tells the user).
    `info`: what the file says about itself; None when there was no file.
    """

    frames: Any
    fps: Fraction | None = None
    truncated: bool = False
    left_out: int | None = 0
    audio: Audio | None = None
    audio_problem: str = ""
    info: VideoInfo | None = None

    @property
    def count(self) -> int:
        """How many frames there are."""
        return int(self.frames.shape[0])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.frames.shape[2])

    @property
    def has_audio(self) -> bool:
        """Whether the source is a file with a sound track."""
        return self.info is not None and self.info.has_audio


def read_clip(
    source: Any,
    *,
    max_frames: int | None,
    limits: Limits | None = None,
    reader: Callable[..., Clip] | None = None,
) -> Clip:
    """The first `max_frames` frames of `source` (None: all of them) as a Clip of its own; `source` is left as it was.

    - path, address, bytes, file object: a video or a GIF, read by `reader` (`media.video.read_video`).
    - numpy array: uint8 `f h w 3`, RGB, as `output_type='frames'` gives them. (A single picture as array is BGR, as
      cv2 gives it; a clip is not.)
    - torch tensor: `c f h w`, as `output_type='pt'` gives them, or `f h w c`, also with a leading batch of 1; RGB;
      floating-point in [-1, 1] (what overshoots is clamped, nothing is rounded) or uint8. A shape with a 3 at both
      ends could be either, and is refused.
    - list or tuple of PIL images and of arrays uint8 `h w 3` in RGB, all of one size.

    Raises UnreadableMediaError and MediaLimitError as `read_video`, MediaLimitError also for frames in memory that
    exceed `limits` (`max_video_pixels`, `max_frames`, `max_clip_bytes`), ArgumentError for another shape, type or
    range or `max_frames` below 1, NonFiniteError for NaN or infinity.
    """
    limits = limits or Limits()
    if max_frames is not None and not 1 <= max_frames <= limits.max_frames:
        raise ArgumentError(f"max_frames is 1 to {limits.max_frames}, not {max_frames}")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.Tensor):
        return _from_tensor(source, max_frames, limits)
    if isinstance(source, np.ndarray):
        _check_array(source)
        count = _bounded(source.shape, 1, max_frames, limits)
        return _in_memory(np.array(source[:count]), len(source))
    if isinstance(source, (list, tuple)):
        return _from_list(source, max_frames, limits)
    if reader is None:
        from i2vgen_ms.media.video import read_video

        reader = read_video
    clip = reader(source, max_frames=limits.max_frames if max_frames is None else max_frames, limits=limits)
    if clip.truncated and max_frames is None:
        raise MediaLimitError(f"the video has more than {limits.max_frames} frames; give max_frames to read fewer")
    return clip


def _in_memory(frames: Any, given: int) -> Clip:
    left_out = given - int(frames.shape[0])
    return Clip(frames=frames, truncated=left_out > 0, left_out=left_out)


def _bounded(shape: tuple[int, ...], size: int, max_frames: int | None, limits: Limits) -> int:
    """How many of the frames `f h w c` of `size` bytes a value are taken; refuses what is empty or beyond `limits`."""
    frames, height, width = shape[:3]
    if 0 in shape:
        raise ArgumentError(f"a clip has at least one frame and one pixel, not the shape {shape}")
    if width * height > limits.max_video_pixels:
        raise MediaLimitError(
            f"frames of {width}x{height} = {width * height} pixels; at most {limits.max_video_pixels} are read"
        )
    if max_frames is None and frames > limits.max_frames:
        raise MediaLimitError(f"{frames} frames; at most {limits.max_frames} are read; give max_frames to read fewer")
    count = min(frames, max_frames or frames)
    if count * height * width * 3 * size > limits.max_clip_bytes:
        raise MediaLimitError(
            f"{count} frames of {width}x{height} take more than {words(limits.max_clip_bytes)}; "
            "read fewer (max_frames) or smaller ones"
        )
    return count


def _check_array(array: npt.NDArray[Any]) -> None:
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
        raise ArgumentError(
            f"a clip as array has the shape {_ARRAY_SHAPE}, not {array.shape} {array.dtype}; "
            "give pixels in [-1, 1] as a torch tensor"
        )


def _from_tensor(tensor: Any, max_frames: int | None, limits: Limits) -> Clip:
    import torch

    frames = _frames_first(tensor.detach(), tuple(tensor.shape))
    if not frames.is_floating_point():
        if frames.dtype != torch.uint8:
            raise ArgumentError(f"a clip as tensor is floating-point in [-1, 1] or uint8, not {tensor.dtype}")
        count = _bounded(tuple(frames.shape), 1, max_frames, limits)
        return _in_memory(np.array(frames[:count].cpu().numpy(), order="C"), frames.shape[0])
    count = _bounded(tuple(frames.shape), 4, max_frames, limits)
    # clone: neither a view of what was given, nor of its other frames
    pixels = frames[:count].to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)
    low, high = (float(value) for value in torch.aminmax(pixels))
    if not np.isfinite(low + high):
        raise NonFiniteError("the clip's tensor holds NaN or infinity")
    if max(-low, high) > _FAR_OUTSIDE:
        raise ArgumentError(
            f"a clip as floating-point tensor holds values in [-1, 1], not {low:g}..{high:g}; for 0..255 give x.byte()"
        )
    # published: the second stage reads pixels from a file, which holds nothing outside
    return _in_memory(pixels.clamp_(-1, 1), frames.shape[0])


def _frames_first(value: Any, shape: tuple[int, ...]) -> Any:
    """`f h w c` from either order."""
    if value.ndim == 5 and shape[0] == 1:
        value = value[0]
    ends = (value.shape[0] == 3, value.shape[-1] == 3) if value.ndim == 4 else (False, False)
    if ends == (True, True):
        raise ArgumentError(
            f"a clip of the shape {shape} could be (c, f, h, w) or (f, h, w, c): one frame more or less, or frames "
            "that are not 3 wide, tell which"
        )
    if ends == (False, False):
        raise ArgumentError(f"a clip as tensor has the shape {_TENSOR_SHAPES}, not {shape}")
    return value.permute(1, 2, 3, 0) if ends[0] else value


def _from_list(pictures: list[Any] | tuple[Any, ...], max_frames: int | None, limits: Limits) -> Clip:
    if not pictures:
        raise ArgumentError("a clip has at least one frame; the list of frames is empty")
    first = _picture(pictures[0], 0, limits)
    count = _bounded((len(pictures), *first.shape), 1, max_frames, limits)
    frames = np.empty((count, *first.shape), np.uint8)
    frames[0] = first
    for index in range(1, count):
        frame = _picture(pictures[index], index, limits)
        if frame.shape != first.shape:
            raise ArgumentError(
                f"the frames of a clip have one size; frame 0 is {first.shape[1]}x{first.shape[0]}, "
                f"frame {index} is {frame.shape[1]}x{frame.shape[0]}"
            )
        frames[index] = frame
    return _in_memory(frames, len(pictures))


def _picture(picture: Any, index: int, limits: Limits) -> npt.NDArray[np.uint8]:
    if isinstance(picture, Image.Image):
        return read_picture(picture, limits=limits)
    if isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8:
        return picture
    what = f"{picture.shape} {picture.dtype}" if isinstance(picture, np.ndarray) else type(picture).__name__
    raise ArgumentError(
        f"frame {index} of the list is neither a PIL image nor a uint8 array (h, w, 3) in RGB, but {what}"
    )
