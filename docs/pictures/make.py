"""Makes the pictures of the documentation anew, with the models that come with the package.

    python docs/pictures/make.py [FOLDER]

`demo.gif`: the picture, stage 1 and stage 2 side by side. `stages.png`: the same as frames. `sampling.png`: what
stage 1 looks like while it is made. `strength.png`: how much stage 2 makes anew. It takes a minute or two of a CPU.
The plots `samplers-*.png` are of `python -m benchmarks.samplers --plot`, which takes half an hour.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from i2vgen_ms import demo, load
from i2vgen_ms.media.frames import to_pixels, to_uint8
from i2vgen_ms.media.sheet import write_sheet
from i2vgen_ms.media.writers import open_writer
from i2vgen_ms.pipelines import Progress

PICTURE = "ring"
STRENGTHS, USUAL = (0.25, 0.5, 0.85), 0.5
EARLY = (0, 1, 3)  # steps whose guess of the end is shown, and the last


def video(result: Any) -> Tensor:
    """The pixels `f h w c` of a Result."""
    tensor: Tensor = result.tensor
    return tensor.movedim(0, -1)


def enlarged(clip: Tensor, height: int, width: int) -> Tensor:
    """`f h w c` with every pixel repeated, so that what is small looks small."""
    rows, columns = height // clip.shape[1], width // clip.shape[2]
    return clip.repeat_interleave(rows, 1).repeat_interleave(columns, 2)


def still(path: Path, like: Tensor) -> Tensor:
    """A picture as a clip of the size and the length of another."""
    frames, height, width, _ = like.shape
    picture = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    return to_pixels(np.array(picture))[None].expand(frames, -1, -1, -1)


def gif(path: Path, clips: Sequence[Tensor]) -> None:
    """Clips of one size side by side."""
    frames = to_uint8(torch.cat(list(clips), dim=2))
    _, height, width, _ = frames.shape
    with open_writer(path, width=width, height=height, fps=8, options={"type": "gif"}) as output:
        for frame in frames:
            output.write(frame)


def main(folder: Path, **call: Any) -> None:
    """Writes all pictures; `call`: arguments of both stages, such as steps."""
    first, second = load(demo.FIRST, device="cpu"), load(demo.SECOND, device="cpu")
    chosen, previews = demo.sample(PICTURE), []

    def keep(progress: Progress) -> None:
        preview = progress.preview(frames=6)
        if preview is not None:
            previews.append(to_pixels(preview))

    small = first(chosen.path, output_type="pt", progress=keep, **call)
    write_sheet(folder / "sampling.png", [previews[step][None] for step in (*EARLY, -1)])
    call |= {"text": chosen.text, "fps": 8, "output_type": "pt", "progress": False}
    made = {strength: video(second(small.tensor, strength=strength, **call)) for strength in STRENGTHS}
    write_sheet(folder / "strength.png", [clip[None] for clip in made.values()], frames=3)
    large = made[USUAL]
    shown = [still(chosen.path, large), enlarged(video(small), *large.shape[1:3]), large]
    write_sheet(folder / "stages.png", [clip[None] for clip in shown], frames=4)
    gif(folder / "demo.gif", shown)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
