"""What a model is evaluated on: its inputs, the true videos, and what one gets without any model.

Given a configuration, and either the procedural world or a folder of the user's own files. It runs no model.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.evaluation.degrade import degraded, enlarged
from i2vgen_ms.media.clip import Clip, read_clip
from i2vgen_ms.media.fit import fit_clip
from i2vgen_ms.media.frames import to_uint8
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.media.picture import read_picture
from i2vgen_ms.world import Scene, draw, render

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".gif")
WORLD_FPS = 8.0
SPLIT = "held-out"  # scenes that no training sees
FIRST_FRAME, BICUBIC = "first frame", "bicubic"


@dataclass(frozen=True)
class Samples:
    """Inputs for the pipeline, one a video, and the true videos `b f h w c` in [-1, 1] on the CPU.

    without: what one gets without a model, of the same shape, and `called` how. pictures: `b h w c`, that the videos
    should begin with, if they are made from pictures. scenes: of the procedural world. fps: of the true videos.
    """

    inputs: list[Any]
    truth: Tensor
    without: Tensor
    called: str
    fps: float
    pictures: Tensor | None = None
    scenes: list[Scene] | None = None


def from_world(configuration: Configuration, clips: int, *, seed: int = 0) -> Samples:
    """Held-out clips of the procedural world, at the size and the rate that the configuration says."""
    if not 1 <= clips <= 100_000:
        raise ArgumentError(f"clips is 1 to 100000, not {clips}")
    output, fps = configuration.output, _fps(configuration, WORLD_FPS)
    aspect = output.width / output.height
    scenes = [draw(seed, index, split=SPLIT, aspect=aspect) for index in range(clips)]
    truth = torch.cat(
        [
            render([scene], frames=output.num_frames, width=output.width, height=output.height, fps=fps)
            for scene in scenes
        ]
    )
    return _samples(configuration, truth, [scene.caption for scene in scenes], fps, scenes=scenes)


def from_pairs(folder: str | os.PathLike[str], configuration: Configuration, *, clips: int | None = None) -> Samples:
    """The videos of a folder, the first `clips` by name, cut to the size that the configuration says.

    For image to video each NAME.mp4 has a NAME.png (or .jpg) that the model is given. For video to video the model is
    given the spoilt video, and as its text what stands in NAME.txt, if that is there.
    Raises: ArgumentError for a folder without videos, a video without a picture, or one that is too short; MediaError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArgumentError(f"{str(folder)!r} is not a folder; --pairs takes a folder of NAME.png with NAME.mp4")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in VIDEOS)[:clips]
    if not files:
        raise ArgumentError(f"no videos in {str(folder)!r}; names end in {', '.join(VIDEOS)}")
    read = [_video(file, configuration) for file in files]
    pictures = None
    if configuration.task == "image-to-video":
        pictures = torch.stack([_picture(file, configuration) for file in files])
    texts = [_text(file) for file in files]
    return _samples(configuration, torch.stack([pixels for pixels, _ in read]), texts, read[0][1], pictures=pictures)


def _samples(
    configuration: Configuration,
    truth: Tensor,
    texts: Sequence[str],
    fps: float,
    *,
    pictures: Tensor | None = None,
    scenes: list[Scene] | None = None,
) -> Samples:
    if truth.shape[1] < 2:
        raise ArgumentError("videos of one frame have no motion to evaluate; set num_frames to 2 or more")
    if configuration.task == "image-to-video":
        pictures = truth[:, 0] if pictures is None else pictures
        inputs: list[Any] = [Image.fromarray(picture) for picture in to_uint8(pictures)]
        without, called = pictures[:, None].expand_as(truth), FIRST_FRAME
    else:
        small = [degraded(clip, seed=number) for number, clip in enumerate(truth)]
        inputs = [{"video_path": frames, "text": text} for frames, text in zip(small, texts, strict=True)]
        size = {"width": truth.shape[3], "height": truth.shape[2]}
        without, called = torch.stack([enlarged(frames, **size) for frames in small]), BICUBIC
    return Samples(inputs, truth, without, called, fps, pictures, scenes)


def _fps(configuration: Configuration, otherwise: float) -> float:
    fps = configuration.output.fps
    return otherwise if fps == "source" else float(fps)


def _video(file: Path, configuration: Configuration) -> tuple[Tensor, float]:
    """Frames `f h w c` at the configuration's rate, as many and as large as it says, and the rate."""
    output = configuration.output
    own = float(read_clip(file, max_frames=1).fps or WORLD_FPS)
    rate = _fps(configuration, own)
    wanted = [round(number * own / rate) for number in range(output.num_frames)]
    clip: Clip = read_clip(file, max_frames=min(wanted[-1] + 1, Limits().max_frames))
    if clip.count <= wanted[-1]:
        raise ArgumentError(
            f"{file.name} has {clip.count} frames; {output.num_frames} frames at {rate:g} a second take "
            f"{wanted[-1] + 1} of it; ask for fewer frames"
        )
    fitted, _ = fit_clip(np.asarray(clip.frames)[wanted], "crop", width=output.width, height=output.height)
    return fitted, rate


def _picture(file: Path, configuration: Configuration) -> Tensor:
    beside = [path for suffix in PICTURES if (path := file.with_suffix(suffix)).is_file()]
    if not beside:
        raise ArgumentError(f"{file.name} has no picture {file.stem}.png or {file.stem}.jpg beside it")
    output = configuration.output
    fitted, _ = fit_clip(read_picture(beside[0])[None], "crop", width=output.width, height=output.height)
    return fitted[0]


def _text(file: Path) -> str:
    words = file.with_suffix(".txt")
    try:
        return words.read_text(encoding="utf-8").strip() if words.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{words}: the text cannot be read as UTF-8: {error}") from error
