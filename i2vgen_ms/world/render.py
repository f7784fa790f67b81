"""Pixels of scenes: anti-aliased, in one batch, on any device.

Given scenes and times; where everything is, is worked out on the CPU in float64, and sent to the device at once. A
scene's pixels on the CPU are the same bits in every batch. Any width and height will do: the room fits into the
picture, and where the picture is longer than the room one sees beyond the walls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.world.backgrounds import paint_backgrounds, paint_bars
from i2vgen_ms.world.motion import Array, View, tracks, views
from i2vgen_ms.world.scene import Scene
from i2vgen_ms.world.things import paint_things


def render(
    scenes: Sequence[Scene],
    *,
    frames: int = 16,
    width: int = 128,
    height: int = 64,
    fps: float | Sequence[float] = 8,
    times: Any = None,
    device: str | torch.device | None = None,
    acting: Sequence[Scene] | None = None,
) -> Tensor:
    """Clips of scenes: float32 `b f h w c` in [-1, 1] on `device`.

    Args:
        scenes: at least one.
        frames, fps: the frames' times are 0, 1/fps, 2/fps, ... seconds; fps is one number, or one a scene.
        width, height: in pixels.
        times: instead of frames and fps: seconds, `f` or `b f`.
        acting: scenes with as many things, whose motions and cameras the things of `scenes` play; what these look like
            and their marks stay.
    """
    if not scenes or frames < 1 or width < 1 or height < 1:
        raise ArgumentError(
            f"{len(scenes)} scenes, {frames} frames of {width}x{height} are no clips; give at least one of each"
        )
    acting = scenes if acting is None else acting
    clock = _times(len(scenes), frames, fps, times)
    view = views([scene.camera for scene in acting], clock)
    scale = np.array([[min(width / scene.width, height / scene.height)] for scene in scenes])  # pixels a unit
    out = torch.empty(len(scenes), clock.shape[1], height, width, 3, device=device or "cpu")
    still = np.array([scene.camera == "still" for scene in acting])
    paint_backgrounds(scenes, view, scale, still=still, out=out)
    for number in range(max(len(scene.things) for scene in scenes)):
        rows = [row for row, scene in enumerate(scenes) if len(scene.things) > number]
        actors = [acting[row].things[number] for row in rows]
        paint_things(
            [scenes[row].things[number] for row in rows],
            actors,
            tracks(actors, [acting[row].height for row in rows], clock[rows]),
            View(view.x[rows], view.y[rows], view.zoom[rows]),
            scale[rows],
            rows=rows,
            out=out,
        )
    paint_bars(scenes, scale, out=out)
    return out.clamp_(-1, 1)


def _times(count: int, frames: int, fps: float | Sequence[float], times: Any) -> Array:
    """Seconds, `b f`."""
    if times is None:
        rates = np.asarray(fps, float).reshape(-1, 1)
        if len(rates) not in (1, count) or not (rates > 0).all():
            raise ArgumentError(f"fps is a number above 0, or one for each of the {count} scenes, not {fps!r:.80}")
        times = np.arange(frames) / rates
    clock = np.asarray(times, float)
    if clock.ndim not in (1, 2) or clock.size == 0 or (clock.ndim == 2 and len(clock) not in (1, count)):
        raise ArgumentError(f"times are seconds, `f` or `b f` for {count} scenes, not of the shape {clock.shape}")
    return np.broadcast_to(clock, (count, clock.shape[-1]))
