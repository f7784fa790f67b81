"""One clip's frames out of a video file, decoded from the key frame before them, not from the file's beginning.

Given an item of the list and what the clip should be. It knows neither batches nor sizes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from i2vgen_ms.errors import UnreadableMediaError
from i2vgen_ms.media.video import Frame, open_video
from i2vgen_ms.training.data.batch import Spec
from i2vgen_ms.training.data.listing import LOCAL, Item

_APART = Fraction(1, 4)  # of a frame, by which times may be off that are rounded to the file's own clock


def cut(item: Item, spec: Spec, start: float) -> np.ndarray:
    """The frames nearest to `start`, `start + 1/fps`, ... seconds, uint8 `f h w 3`.

    Raises: MediaError; UnreadableMediaError also for a file that ends before it says.
    """
    assert item.fps is not None
    wanted = [round((start + frame / spec.fps) * item.fps) for frame in range(spec.frames)]
    frames = None
    if wanted[0]:
        with contextlib.suppress(UnreadableMediaError):  # an index that leads nowhere; the frames may be there
            frames = _after_a_jump(item, wanted)
    frames = frames or _from_the_beginning(item, wanted)
    return np.stack([frames[number] for number in wanted])


def _from_the_beginning(item: Item, wanted: Sequence[int]) -> dict[int, Frame]:
    frames: dict[int, Frame] = {}
    with open_video(item.entry.path, limits=LOCAL, threads=1) as video:
        for number, frame in enumerate(video):
            if number in wanted:
                frames[number] = frame
            if number >= wanted[-1]:
                return frames
    missing = next(number for number in wanted if number not in frames)
    raise UnreadableMediaError(f"{item.entry.path!r} ends before its frame {missing}, which it announces")


def _after_a_jump(item: Item, wanted: Sequence[int]) -> dict[int, Frame] | None:
    """The same frames, numbered by the times at which they are shown.

    None where that is not sure to be their number in the file: without an index, with frames that are not evenly
    spaced, or where the key frame comes after the first frame that is wanted.
    """
    frames: dict[int, Frame] = {}
    with open_video(item.entry.path, limits=LOCAL, threads=1) as video:
        rate, expected = video.info.fps, None
        if rate is None or not video.jump(wanted[0] / rate):
            return None
        for frame in video:
            if expected is None and not video.is_key:
                continue  # it is made of frames before the key frame, which were not decoded
            place = Fraction(-1) if video.time is None else video.time * rate
            number = round(place)
            if abs(place - number) > _APART or number != (min(number, wanted[0]) if expected is None else expected):
                return None
            if number in wanted:
                frames[number] = frame
            if number >= wanted[-1]:
                return frames
            expected = number + 1
    return None
