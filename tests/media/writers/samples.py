"""A small moving picture, and ways to write it and to look at what was written."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
from PIL import Image

from i2vgen_ms.media.video import read_video
from i2vgen_ms.media.writers import open_writer

NAMES = ["out.mp4", "out.mkv", "out.webm", "out.gif", "out.webp", "frames/"]


def moving(width: int = 48, height: int = 32, frames: int = 6) -> np.ndarray:
    """uint8 `f h w 3`: smooth gradients that move, no two frames alike."""
    f, y, x = np.mgrid[:frames, :height, :width]
    red = 40 + 150 * x / max(1, width - 1)
    green = 30 + 180 * y / max(1, height - 1)
    return np.rint(np.stack([red, green, 60 + 20.0 * f], axis=-1)).astype(np.uint8)


def write(target, frames: np.ndarray, fps: float = 8, **options):
    """Writes all of it; gives back the output."""
    with open_writer(target, width=frames.shape[2], height=frames.shape[1], fps=fps, **options) as output:
        for frame in frames:
            output.write(frame)
    return output


def read(path: Path) -> np.ndarray:
    """The frames of a finished file or folder, uint8 `f h w 3`."""
    if path.is_dir():
        return np.stack([np.array(Image.open(file)) for file in sorted(path.iterdir())])
    if path.suffix == ".webp":
        with Image.open(path) as image:
            frames = []
            for index in range(image.n_frames):
                image.seek(index)
                frames.append(np.array(image.convert("RGB")))
        return np.stack(frames)
    return read_video(path, max_frames=1000).frames


def sound() -> bytes:
    """A file of silence, without any video."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        track = out.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        out.mux(track.encode(silence))
        out.mux(track.encode(None))
    return file.getvalue()
