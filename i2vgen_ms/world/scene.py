"""Scenes: what a clip of the procedural world shows, as plain numbers, drawn from (seed, index) without end.

A scene does not depend on the scenes before it, and is the same on every machine: its numbers are the raw output of
the counter-based generator Philox (Salmon et al. 2011), whose key is the seed and the split, and whose counter is the
index. It knows nothing of pixels.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np

from i2vgen_ms.errors import ArgumentError, nearest
from i2vgen_ms.world import rules
from i2vgen_ms.world.caption import caption

Item = TypeVar("Item")
_NUMBERS = 48  # raw numbers a scene; more than any scene takes


@dataclass(frozen=True)
class Thing:
    """One object. Lengths and angles as in rules.py.

    x, y, radius, angle: of the first frame; the shape lies within the circle of this radius, and angle 0 is upright.
    heading: index into rules.HEADINGS, of what glides. turn: 1 clockwise, -1 against the clock, of what spins.
    left, right: the walls that it stays between.
    """

    shape: str
    colour: str
    texture: str
    motion: str
    x: float
    y: float
    radius: float
    angle: float = 0.0
    heading: int = 0
    turn: int = 1
    left: float = -1.0
    right: float = 1.0

    @property
    def direction(self) -> tuple[float, float] | None:
        """The unit vector in which a gliding thing sets off; None for others."""
        if self.motion != "glide":
            return None
        return unit(self.heading)


@dataclass(frozen=True)
class Background:
    """A soft gradient towards `angle` (degrees), with a pattern that repeats every `period`, moved by `shift`."""

    colour: str
    pattern: str
    angle: float
    period: float
    shift: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """What one clip shows: things from left to right, before a background, in a room of `width` by `height`."""

    things: tuple[Thing, ...]
    background: Background
    camera: str = "still"
    width: float = 2.0
    height: float = 1.0

    @cached_property
    def caption(self) -> str:
        """The clip in words."""
        return caption(self)


@dataclass(frozen=True)
class Variety:
    """What scenes are drawn from: names that may occur, and the shares of motions, of pairs and of moving cameras."""

    shapes: Sequence[str] = tuple(shape for shape in rules.SHAPES if shape not in rules.HELD_OUT_SHAPES)
    colours: Sequence[str] = tuple(rules.COLOURS)
    textures: Sequence[str] = tuple(rules.TEXTURES)
    motions: dict[str, float] = field(
        default_factory=lambda: {"glide": 0.62, "spin": 0.14, "grow": 0.1, "shrink": 0.1, "rest": 0.04}
    )
    pairs: float = 0.2
    cameras: float = 0.15

    def __post_init__(self) -> None:
        for what, given, known in (
            ("shape", self.shapes, rules.SHAPES),
            ("colour", self.colours, tuple(rules.COLOURS)),
            ("texture", self.textures, tuple(rules.TEXTURES)),
            ("motion", tuple(self.motions), rules.MOTIONS),
        ):
            for name in given:
                if name not in known:
                    raise ArgumentError(f"there is no {what} {name!r} in this world; {nearest(name, known)}")
            if not given:
                raise ArgumentError(f"a world without any {what} has no scenes; name at least one")
        for what, share in (("pairs", self.pairs), ("cameras", self.cameras)):
            if not 0 <= share <= 1:
                raise ArgumentError(f"{what} is a share of the scenes, 0 to 1, not {share!r}")
        if min(self.motions.values()) < 0 or not sum(self.motions.values()) > 0:
            raise ArgumentError(f"motions are weights, at least one of them above 0, not {self.motions!r}")


STANDARD = Variety()


def draw(seed: int, index: int, *, split: str = "train", variety: Variety = STANDARD, aspect: float = 2.0) -> Scene:
    """Scene number `index` (0 or more) of the stream that `seed` and the name `split` choose.

    Different splits are different streams: what 'held-out' shows never occurs in 'train'. `aspect` is the picture's
    width by its height; two things need at least 1.6. Raises: ArgumentError for a number out of range.
    """
    for name, value in (("seed", seed), ("index", index)):
        if not 0 <= value < 2**63:
            raise ArgumentError(f"{name} is a whole number of at least 0, not {value!r}")
    if not 0.25 <= aspect <= 4:
        raise ArgumentError(f"aspect is 0.25 to 4, not {aspect!r}")
    numbers = _Numbers(seed, index, split)
    width, height = max(aspect, 1.0), max(1 / aspect, 1.0)
    pair = numbers.uniform() < variety.pairs and aspect >= 1.6
    moving = numbers.uniform() < variety.cameras
    camera = numbers.pick(tuple(rules.CAMERAS)[1:]) if moving else "still"
    background = _background(numbers, moving)
    walls = ((-width / 2, 0.0), (0.0, width / 2)) if pair else ((-width / 2, width / 2),)
    things = tuple(_thing(numbers, variety, camera, pair, *wall, width, height) for wall in walls)
    return Scene(things, background, camera, width, height)


def unit(heading: int) -> tuple[float, float]:
    """The unit vector of a heading."""
    angle = math.radians(45 * heading)
    return round(math.cos(angle), 15), round(math.sin(angle), 15)


class _Numbers:
    """Uniform numbers of one scene, one after the other."""

    def __init__(self, seed: int, index: int, split: str) -> None:
        key = seed | zlib.crc32(split.encode()) << 64
        raw = np.random.Philox(key=key, counter=index << 64).random_raw(_NUMBERS)
        self._left = iter((raw >> np.uint64(11)).tolist())  # 53 bits, as a float64 holds

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * (next(self._left) * 2.0**-53)

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self.uniform() * len(items))]

    def weighted(self, weights: dict[str, float]) -> str:
        rest = self.uniform() * sum(weights.values())
        for name, weight in weights.items():
            rest -= weight
            if rest < 0:
                return name
        return max(weights, key=lambda name: weights[name])


def _background(numbers: _Numbers, moving: bool) -> Background:
    patterns = tuple(rules.PATTERNS)
    return Background(
        colour=numbers.pick(tuple(rules.BACKGROUNDS)),
        pattern=numbers.pick(patterns[1:] if moving else patterns),  # a moving camera is seen only by a pattern
        angle=45.0 * numbers.pick(range(8)),
        period=numbers.uniform(0.35, 0.55),
        shift=(numbers.uniform(), numbers.uniform()),
    )


def _thing(
    numbers: _Numbers, variety: Variety, camera: str, pair: bool, left: float, right: float, width: float, height: float
) -> Thing:
    shape, colour = numbers.pick(variety.shapes), numbers.pick(variety.colours)
    texture = numbers.pick(variety.textures)
    motion = numbers.weighted(variety.motions)
    if camera != "still" and motion != "spin":
        motion = "rest"  # one motion at a time is seen, either the camera's or the thing's
    heading, turn = numbers.pick(range(8)), numbers.pick((1, -1))
    sizes = {"grow": rules.GROWING_RADIUS, "shrink": rules.SHRINKING_RADIUS}
    radius = numbers.uniform(*sizes.get(motion, rules.PAIR_RADIUS if pair else rules.SINGLE_RADIUS))
    facing = 45.0 * numbers.pick(range(8)) if motion == "spin" or shape in rules.POINTED_SHAPES else 0.0
    room = rules.RADIUS_LIMITS[1] if motion == "grow" else radius
    velocity = unit(heading) if motion == "glide" else (0.0, 0.0)
    pan = {"pan right": (-1, 0), "pan left": (1, 0), "pan down": (0, -1), "pan up": (0, 1)}.get(camera, (0, 0))
    shrunk = rules.ZOOM_LIMIT if camera == "zoom in" else 1.0  # the part of the room that stays in sight
    place = []
    for (low, high), speed, moved in zip(
        ((max(left, -width / 2 / shrunk), min(right, width / 2 / shrunk)), (-height / 2 / shrunk, height / 2 / shrunk)),
        velocity,
        pan,
        strict=True,
    ):
        way = speed * rules.GLIDE_SPEED * rules.CLEAR_SECONDS + moved * rules.PAN_LIMIT
        place.append(numbers.uniform(low + room + max(-way, 0), high - room - max(way, 0)))
    return Thing(
        shape=shape,
        colour=colour,
        texture=texture,
        motion=motion,
        x=place[0],
        y=place[1],
        radius=radius,
        angle=(45.0 * heading + 90) % 360 if motion == "glide" and shape in rules.POINTED_SHAPES else facing,
        heading=heading if motion == "glide" else 0,
        turn=turn if motion == "spin" else 1,
        left=left,
        right=right,
    )
