"""Where everything is at a time: the truth about a clip, from which it is drawn and against which it is measured.

Given scenes and times in seconds; gives back plain arrays, float64. It knows nothing of pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from i2vgen_ms.world import rules
from i2vgen_ms.world.scene import Scene, Thing, unit

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Track:
    """Things over time, each field `n f`: the middle, the radius, and two angles in degrees, clockwise as seen.

    angle: by how much the shape is turned from upright. front: where a gliding thing goes, from the right; at a wall it
    turns round. Of other things it is where their upper side is.
    """

    x: Array
    y: Array
    radius: Array
    angle: Array
    front: Array


@dataclass(frozen=True)
class View:
    """Cameras over time, each field `n f`: the point in the picture's middle, and the magnification."""

    x: Array
    y: Array
    zoom: Array


def track(scene: Scene, times: Sequence[float] | Array) -> Track:
    """The things of one scene at `times` in seconds; `n` counts them from left to right."""
    count = len(scene.things)
    return tracks(scene.things, [scene.height] * count, np.broadcast_to(np.asarray(times, float), (count, len(times))))


def tracks(things: Sequence[Thing], heights: Sequence[float], times: Array) -> Track:
    """Many things at once, each with the height of its room and its own times: `times` is `n f`."""

    is_gliding = _column(thing.motion == "glide" for thing in things)
    velocity = np.array([unit(thing.heading) for thing in things]) * rules.GLIDE_SPEED * is_gliding
    radius_start = _column(thing.radius for thing in things)
    half = np.array(list(heights), float)[:, None] / 2
    x, sign_x = fold(
        _column(thing.x for thing in things),
        velocity[:, :1] * times,
        _column(thing.left for thing in things) + radius_start,
        _column(thing.right for thing in things) - radius_start,
    )
    y, sign_y = fold(
        _column(thing.y for thing in things), velocity[:, 1:] * times, radius_start - half, half - radius_start
    )

    growth = _column({"grow": 1, "shrink": -1}.get(thing.motion, 0) for thing in things)
    swelling, _ = fold(radius_start, growth * rules.GROWTH_SPEED * times, *rules.RADIUS_LIMITS)
    radius = np.where(growth != 0, swelling, radius_start)

    spin = _column(thing.turn if thing.motion == "spin" else 0 for thing in things)
    angle = _column(facing(thing) for thing in things) + spin * rules.SPIN_SPEED * times
    # headings are multiples of 45 degrees, and so is this, exactly
    front = np.round(np.degrees(np.arctan2(velocity[:, 1:] * sign_y, velocity[:, :1] * sign_x)) / 45) * 45
    turns_round = _column(_turns_round(thing) for thing in things)
    return Track(
        x=x,
        y=y,
        radius=radius,
        angle=np.where(turns_round > 0, front + 90, angle),
        front=np.where(is_gliding > 0, front, angle - 90),
    )


def facing(thing: Thing) -> float:
    """The angle of a thing in the first frame, in degrees: pointed ones that glide point where they go."""
    return 45.0 * thing.heading + 90 if _turns_round(thing) else thing.angle


def _turns_round(thing: Thing) -> bool:
    return thing.motion == "glide" and thing.shape in rules.POINTED_SHAPES


def views(cameras: Sequence[str], times: Array) -> View:
    """Many cameras at once; `times` is `n f`."""

    def sign(table: dict[str, int]) -> Array:
        return _column(table.get(camera, 0) for camera in cameras)

    way, _ = fold(0.0, rules.PAN_SPEED * times, 0.0, rules.PAN_LIMIT)
    more, _ = fold(1.0, rules.ZOOM_SPEED * times, 1.0, rules.ZOOM_LIMIT)
    zoom = sign({"zoom in": 1, "zoom out": -1})
    return View(
        x=way * sign({"pan right": 1, "pan left": -1}),
        y=way * sign({"pan down": 1, "pan up": -1}),
        zoom=np.where(zoom > 0, more, np.where(zoom < 0, 1 / more, 1.0)),
    )


def fold(start: Any, way: Array, low: Any, high: Any) -> tuple[Array, Array]:
    """A point that has gone `way` from `start` and was thrown back by walls at `low` and `high`.

    Returns: where it is, and 1 where it goes on as it started or -1 where it comes back.
    """
    length = np.maximum(np.asarray(high, float) - low, 1e-9)
    laps = (np.asarray(start, float) - low + way) / length
    around = np.mod(laps, 2)
    back = around > 1
    return low + length * np.where(back, 2 - around, around), np.where(back, -1.0, 1.0)


def _column(values: Iterable[float]) -> Array:
    return np.array(list(values), float)[:, None]
