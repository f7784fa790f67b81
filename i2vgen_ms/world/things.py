"""Things, painted into pictures: shape, texture, a soft shadow, and the marks that tell what the thing will do.

Given things, their track and what the cameras see. Each is painted only on a square around it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from i2vgen_ms.world import paint, rules
from i2vgen_ms.world.motion import Array, Track, View, facing
from i2vgen_ms.world.scene import Thing
from i2vgen_ms.world.shapes import SHAPES, length

_REACH = 1.22  # how far from its middle a thing changes pixels, in radii
_SHADOW, _SHADOW_REACH = 0.3, 0.2  # strength at the outline; where it ends, in radii
_DARK = 0.42  # how much darker a texture's second tone is
_EDGE, _EDGE_WIDTH = 0.4, 0.13  # how much darker the thing is along its outline; how far from it, in radii
_SHADING = 0.1  # light comes from above on the left
_APART = 0.5  # how far the two marks of what spins are from its middle, at least
_MARK, _MIDDLE_MARK, _RIM = 0.23, 0.28, 0.07  # radii of marks near the outline and in the middle, and a rim's width


def paint_things(
    things: Sequence[Thing],
    actors: Sequence[Thing],
    track: Track,
    view: View,
    scale: npt.NDArray[np.float64],
    *,
    rows: Sequence[int],
    out: Tensor,
) -> None:
    """Paints thing number i into the clip `out[rows[i]]`, `f h w c`; no two into one.

    track, view: of `actors`, whose motion the things play; `scale` is pixels a unit, `n 1`.
    """
    device = out.device
    _, frames, height, width, _ = out.shape
    order = sorted(range(len(things)), key=lambda i: rules.SHAPES.index(things[i].shape))
    things, actors = [things[i] for i in order], [actors[i] for i in order]
    zoom = (view.zoom * scale)[order]
    x = (track.x - view.x)[order] * zoom + width / 2
    y = (track.y - view.y)[order] * zoom + height / 2
    radius = track.radius[order] * zoom
    turned = track.angle[order] - _column(facing(actor) for actor in actors)
    angle = np.radians(turned + _column(facing(thing) for thing in things))
    front = np.radians(
        track.front[order]
        - _column(45 * actor.heading - 45 * thing.heading for actor, thing in zip(actors, things, strict=True))
    )

    # The square that is painted has one size for all, and lies within the picture.
    side = 2 * int(np.ceil(radius.max() * _REACH)) + 2
    wide, high = min(side, width), min(side, height)
    left = np.clip(np.floor(x - wide / 2), 0, width - wide)
    top = np.clip(np.floor(y - high / 2), 0, height - high)
    across, down = np.cos(angle) / radius, np.sin(angle) / radius
    marks = [mark for mark in _marks(things, front - angle) if mark[2].any()]
    columns = paint.send(device, left + 0.5, top + 0.5, x, y, across, down, radius, *itertools.chain(*marks))
    x0, y0, centre_x, centre_y, cosine, sine, pixels = columns[:7]
    dx = torch.arange(wide, device=device) + x0 - centre_x
    dy = torch.arange(high, device=device)[:, None] + y0 - centre_y
    u, v = dx * cosine + dy * sine, dy * cosine - dx * sine

    distance = torch.cat([SHAPES[shape][0](u[span], v[span]) for shape, span in _groups(things)])
    # The pixel becomes background * seen + colour * tone + grey.
    cover = (0.5 - distance * pixels).clamp(0, 1)
    # Distances from sharp tips are short ones; the circle around the shape ends the shadow where the square does.
    shadow = (1 - torch.maximum(distance, length(u, v) - 1) / _SHADOW_REACH).clamp(0, 1)
    seen = (1 - cover) * (1 - shadow * shadow * _SHADOW)
    kinds = torch.tensor([list(rules.TEXTURES).index(thing.texture) for thing in things], device=device)
    dark = paint.texture(kinds[:, None, None, None], u, v, pixels)
    edge = (distance / _EDGE_WIDTH + 1).clamp(0, 1)
    light = 1 - (dx * 0.5 + dy) / pixels * _SHADING
    tone = cover * (1 - dark * _DARK) * (1 - edge * _EDGE) * light
    grey = torch.zeros_like(tone)
    for first in range(7, len(columns), 4):
        mark_x, mark_y, size, value = columns[first : first + 4]
        away = length(u - mark_x, v - mark_y)
        there = (size > 0).float()
        rim = ((size + _RIM - away) * pixels + 0.5).clamp(0, 1) * there
        disc = ((size - away) * pixels + 0.5).clamp(0, 1) * there
        seen, tone = seen * (1 - rim), tone * (1 - rim)
        grey = (grey * (1 - rim) + (1 - value) * rim) * (1 - disc) + value * disc

    clip = np.asarray(rows)[order][:, None] * frames + np.arange(frames)
    corner = clip * (height * width) + top * width + left
    start = torch.from_numpy(corner.astype(np.int64)).to(device)[..., None, None]
    place = start + torch.arange(high, device=device)[:, None] * width + torch.arange(wide, device=device)
    colour = torch.tensor([rules.COLOURS[thing.colour] for thing in things], device=device)[:, None, None, None]
    seen = seen[..., None]
    more = colour * tone[..., None] + grey[..., None]
    flat = out.view(-1, 3)
    flat[place] = (flat[place] + 1) * seen + more * 2 - 1


def _marks(things: Sequence[Thing], front: Array) -> list[tuple[Array, ...]]:
    """Two marks of each thing, each x, y, radius (0: none) and brightness; in radii of the thing, turned with it."""
    away = _column(SHAPES[thing.shape][1] for thing in things)
    gliding = _column(thing.motion == "glide" for thing in things)
    spinning = _column(thing.motion == "spin" for thing in things)
    pulsing = _column(thing.motion in ("grow", "shrink") for thing in things)
    shrinking = _column(thing.motion == "shrink" for thing in things)
    turn = _column(thing.turn for thing in things)
    apart = np.maximum(away, _APART)
    first = (
        gliding * away * np.cos(front),
        gliding * away * np.sin(front) - spinning * apart,
        (gliding + spinning) * _MARK + pulsing * _MIDDLE_MARK,
        np.where(shrinking > 0, paint.BLACK, paint.WHITE),
    )
    second = (-turn * apart, np.zeros_like(away), spinning * _MARK, np.full_like(away, paint.BLACK))
    return [first, second]


def _column(values: Iterable[float]) -> Array:
    return np.array(list(values), float)[:, None]


def _groups(things: Sequence[Thing]) -> list[tuple[str, slice]]:
    """The shapes that there are, each with its place among things that are sorted by shape."""
    names = [thing.shape for thing in things]
    return [(name, slice(names.index(name), names.index(name) + names.count(name))) for name in dict.fromkeys(names)]
