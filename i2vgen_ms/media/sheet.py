"""A contact sheet: videos above each other, their frames side by side, as one picture."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from i2vgen_ms.errors import OutputError
from i2vgen_ms.media.frames import to_uint8

_GAP, _GREY = 2, 128


def write_sheet(path: str | os.PathLike[str], videos: Sequence[Tensor], *, clips: int = 10, frames: int = 6) -> None:
    """Writes a PNG: for each of the first `clips` clips a row of `frames` frames of each of the videos `b f h w c`.

    Raises: OutputError.
    """
    count, length, height, width, _ = videos[0].shape
    shown = [round(place * (length - 1) / max(frames - 1, 1)) for place in range(min(frames, length))]
    rows = min(clips, count) * len(videos)
    picture = np.full((rows * (height + _GAP), len(shown) * (width + _GAP), 3), _GREY, np.uint8)
    for row in range(rows):
        clip = to_uint8(videos[row % len(videos)][row // len(videos)][shown])
        for column, frame in enumerate(clip):
            top, left = row * (height + _GAP), column * (width + _GAP)
            picture[top : top + height, left : left + width] = frame
    path = Path(path)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        Image.fromarray(picture).save(beside, "PNG")
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(f"the sheet cannot be written to {str(path)!r}: {error}") from error
