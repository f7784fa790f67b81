"""The demonstration: both stages on a bundled picture, with the bundled models, on any machine and without a network.

Given where the video goes. It says what it does, what it made and what to try next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2vgen_ms.config.data import configuration_folder
from i2vgen_ms.config.json_file import read_object
from i2vgen_ms.errors import ConfigurationError, OutputError, nearest

FIRST, SECOND = "i2vgen-ms/small-image-to-video", "i2vgen-ms/small-video-to-video"
PICTURE = "growing"
_PICTURES, _LIST = "pictures", "pictures.json"
_READ_AGAIN = (".mp4", ".mkv", ".webm", ".gif")


@dataclass(frozen=True)
class Sample:
    """A bundled picture, and a text that says what it shows."""

    name: str
    path: Path
    text: str


def samples() -> list[Sample]:
    """The bundled pictures."""
    folder = configuration_folder() / _PICTURES
    return [Sample(name, folder / f"{name}.png", str(text)) for name, text in read_object(folder / _LIST).items()]


def sample(name: str = PICTURE) -> Sample:
    """One of the bundled pictures. Raises: ConfigurationError for a name that there is not."""
    known = {one.name: one for one in samples()}
    if name not in known:
        raise ConfigurationError(f"no bundled picture {name!r}; {nearest(name, known)}")
    return known[name]


def run(
    output: str | os.PathLike[str] = "demo.mp4",
    *,
    picture: str = PICTURE,
    device: str | None = "cpu",
    seed: int | None = None,
    progress: Any = None,
    say: Callable[[str], Any] = print,
) -> Path:
    """Makes a video from a bundled picture; `say` is told, line by line, what is done and what comes next.

    Beside the video, which both stages made, stand the first stage's own and a sheet with the frames of both.
    Args: output: the video. picture: the name of a bundled one. device, seed, progress: as for every pipeline.
    Returns: the video's path. Raises: OutputError for a name that is not one of a video that can be read again; as the
    pipelines.
    """
    if Path(output).suffix.lower() not in _READ_AGAIN:
        raise OutputError(
            f"demo: {os.fspath(output)!r}: the sheet of frames is made from videos that can be read again; give a name "
            f"that ends with {', '.join(_READ_AGAIN)}"
        )
    from i2vgen_ms.pipelines import Animation, load

    started = time.monotonic()
    chosen = sample(picture)
    path = Path(os.path.abspath(output))
    small, sheet = path.with_name(f"{path.stem}-first{path.suffix}"), path.with_name(f"{path.stem}.png")
    say("i2vgen_ms demo: a picture becomes a video in two stages, with the small models that come with the package.")
    both = Animation(load(FIRST, device=device), load(SECOND, device=device))
    result = both(
        chosen.path, output=path, output_type="pt", text=chosen.text, keep_first=small, seed=seed, progress=progress
    )
    _write_sheet(sheet, small, result.tensor)
    frames, height, width = result.tensor.shape[1:]
    say(f"  picture  {chosen.path} ({chosen.text})")
    say(f"  stage 1  {small}")
    say(f"  stage 2  {path} ({frames} frames of {width}x{height}, seed {result.seed})")
    say(f"  frames   {sheet} (above stage 1, below stage 2)")
    say(f"  took     {time.monotonic() - started:.1f} s")
    say("Next, another picture of that kind; the small models know coloured shapes and nothing else:")
    say(f"  i2vgen-ms animate PICTURE -o video.mp4 --first-model {FIRST} --second-model {SECOND}")
    say("or the published models, for any picture (about 11 GB, CC-BY-NC-ND-4.0; a GPU is advised):")
    say("  i2vgen-ms animate PICTURE -o video.mp4 --text 'what it should show'")
    return path


def _write_sheet(sheet: Path, small: Path, large: Any) -> None:
    """Writes the contact sheet of both stages: the file of the first, and the second's pixels `c f h w`."""
    import numpy as np
    import torch.nn.functional as F

    from i2vgen_ms.media.clip import read_clip
    from i2vgen_ms.media.frames import to_pixels
    from i2vgen_ms.media.sheet import write_sheet

    frames = to_pixels(np.asarray(read_clip(small, max_frames=large.shape[1]).frames)).movedim(-1, 1)
    enlarged = F.interpolate(frames, size=large.shape[2:], mode="nearest").movedim(1, -1)
    write_sheet(sheet, [enlarged[None], large.movedim(0, -1)[None].float()])
