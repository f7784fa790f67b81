"""Delivery: frames, as they are decoded, to the files and arrays that a call asked for.

It is given targets and chunks of frames; it knows neither networks nor what the frames show.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from i2vgen_ms import catalogue
from i2vgen_ms.config.schema import Output
from i2vgen_ms.errors import ArgumentError, nearest
from i2vgen_ms.media.frames import to_levels
from i2vgen_ms.media.writers import numbered, open_writer
from i2vgen_ms.media.writers import probe as check_place
from i2vgen_ms.pipelines.result import Result
from i2vgen_ms.runtime.beside import Behind
from i2vgen_ms.tensors.arrival import Arrival

OUTPUT_TYPES = ("video", "frames", "pt")
Target = str | os.PathLike[str] | None


def targets(output: Any, count: int | None) -> list[Target]:
    """One target an input: none, numbered names, or the names that were given. count None: a single input, not a list.

    Raises: ArgumentError if names and inputs are not equally many, or two names are the same.
    """
    if count is None:
        return [_name(output)]
    if output is None:
        return [None] * count
    if isinstance(output, (str, os.PathLike)):
        return [numbered(output, index) for index in range(count)]
    if not isinstance(output, Sequence) or isinstance(output, bytes):
        raise ArgumentError(f"output={output!r:.80} is neither a name nor a list of names")
    names = [_name(name) for name in output]
    if len(names) != count:
        raise ArgumentError(f"{count} inputs but {len(names)} outputs; give one name, or one for each input")
    distinct(names)
    return names


def _name(output: Any) -> Target:
    if output is not None and not isinstance(output, (str, os.PathLike)):
        raise ArgumentError(f"output={output!r:.80} is no name of a file or folder; give text or a path")
    return output


def distinct(names: Sequence[Target]) -> None:
    """Raises ArgumentError if two of the names are one place, where one result would replace the other."""
    seen: dict[str, Target] = {}
    for name in names:
        place = None if name is None else os.path.realpath(os.fspath(name).replace("\0", ""))
        if place is not None and place in seen:
            raise ArgumentError(f"{name!r} and {seen[place]!r} are one place, for two results; give two names")
        if place is not None:
            seen[place] = name


def probe(settings: Output, wanted: Sequence[Target]) -> None:
    """Raises OutputError if any of the targets cannot be written to."""
    part = catalogue.build("writers", settings.writer)
    for target in wanted:
        check_place(target, part)


def check_output_type(output_type: Any) -> str:
    """The output type, `video` if it is None. Raises: ArgumentError for one that is not known."""
    if output_type is None:
        return "video"
    if output_type not in OUTPUT_TYPES:
        raise ArgumentError(f"output_type={output_type!r} is unknown; {nearest(str(output_type), OUTPUT_TYPES)}")
    return str(output_type)


def writers(
    settings: Output,
    wanted: Sequence[Target],
    *,
    fps: float | Fraction,
    output_type: str,
    seed: int,
    audio: Any = None,
) -> list[Any]:
    """A writer, not yet entered, for each target; None where frames are asked for and no file is.

    fps: frames a second of the file. audio: a media.audio.Audio to carry along.
    Raises: OutputError for a place that cannot be written to.
    """
    part = catalogue.build("writers", settings.writer)
    return [
        open_writer(
            target,
            width=settings.width,
            height=settings.height,
            fps=fps,
            part=part,
            metadata={"comment": f"i2vgen_ms seed={seed}"},
            audio=audio,
        )
        if target is not None or output_type == "video"
        else None
        for target in wanted
    ]


def deliver(chunks: Iterator[Tensor], writer: Any, output_type: str, *, count: int) -> Any:
    """Writes chunks `f h w c` in [-1, 1] as they come, `count` frames in all, and returns what the output type keeps.

    A thread waits for the copies from the device and writes, while the chunks' maker goes on; when this returns, every
    frame has been written. The pixels must be finite.
    """
    kept = _Kept(count)

    def take(arrived: tuple[Arrival | None, Arrival | None]) -> None:
        pixels, levels = arrived
        if pixels is not None:
            kept.add(pixels.wait(), torch.float32)
        if levels is not None:
            pictures = levels.wait()
            if output_type == "frames":
                kept.add(pictures, torch.uint8)
            if writer is not None:
                for picture in pictures.numpy():
                    writer.write(picture)

    with Behind(take) as behind:
        for frames in chunks:
            pixels = Arrival(frames) if output_type == "pt" else None
            levels = Arrival(to_levels(frames)) if writer is not None or output_type == "frames" else None
            behind.give((pixels, levels))
    if output_type == "frames":
        return kept.frames.numpy()
    return rearrange(kept.frames, "f h w c -> c f h w") if output_type == "pt" else None


class _Kept:
    """All frames of a video, `f h w c` on the host, filled as they arrive; empty until something is added."""

    def __init__(self, count: int) -> None:
        self._count, self._there = count, 0
        self.frames = torch.empty(0)

    def add(self, frames: Tensor, dtype: torch.dtype) -> None:
        """The next frames, as numbers of `dtype`."""
        if not self._there:
            self.frames = torch.empty((self._count, *frames.shape[1:]), dtype=dtype)
        self.frames[self._there : self._there + len(frames)] = frames
        self._there += len(frames)


def channels_first(chunks: Sequence[Tensor]) -> Tensor:
    """Chunks `f h w c` as one fp32 tensor `c f h w` on the CPU."""
    return rearrange(torch.cat([chunk.float().cpu() for chunk in chunks]), "f h w c -> c f h w")


def result(target: Target, writer: Any, kept: Any, *, output_type: str, seed: int) -> Result:
    """The Result of one video whose writer has been closed."""
    return Result(
        seed=seed,
        path=None if target is None else os.fspath(target),
        video=writer.getvalue() if writer is not None and target is None else None,
        frames=kept if output_type == "frames" else None,
        tensor=kept if output_type == "pt" else None,
    )
