"""Signed distances to the outlines of the shapes, each of which fills the unit circle.

Given x to the right and y downwards, tensors of one shape; a distance is negative inside, and in the same units. Near
the outline it is exact or nearly so, which is all that smooth edges need. Formulas after Inigo Quilez, "2D distance
functions". Only operations that IEEE 754 rounds exactly are used (no sines, no powers), so that a pixel's value does
not depend on the size of the batch that it is computed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Shape = Callable[[Tensor, Tensor], Tensor]


def circle(x: Tensor, y: Tensor) -> Tensor:
    return length(x, y) - 0.92


def ring(x: Tensor, y: Tensor) -> Tensor:
    return (length(x, y) - 0.66).abs() - 0.27


def square(x: Tensor, y: Tensor) -> Tensor:
    return _box(x, y, 0.66, 0.66) - 0.1


def cross(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_box(x, y, 0.84, 0.25), _box(x, y, 0.25, 0.84)) - 0.08


def triangle(x: Tensor, y: Tensor) -> Tensor:
    return _pointed(x, y, top=-1.0, bottom=0.72, half=0.7)


def arrow(x: Tensor, y: Tensor) -> Tensor:
    head = _pointed(x, y, top=-1.0, bottom=0.08, half=0.86)
    return torch.minimum(head, _box(x, y - 0.4, 0.34, 0.5))


def drop(x: Tensor, y: Tensor) -> Tensor:
    """A circle and the two tangents from a point above it."""
    centre, radius = 0.32, 0.62
    sine = radius / (centre + 1)
    cosine = math.sqrt(1 - sine * sine)
    tangents = x.abs() * cosine - (y + 1) * sine
    below = y - (centre - radius * sine)
    return torch.minimum(length(x, y - centre) - radius, torch.maximum(tangents, below))


def star(x: Tensor, y: Tensor) -> Tensor:
    """Five points; the plane is folded onto half of one of them."""
    x = x.abs()
    y = -y
    for sign in (1.0, -1.0):
        across_x, across_y = sign * math.cos(math.radians(36)), -math.sin(math.radians(36))
        overlap = (x * across_x + y * across_y).clamp(min=0) * 2
        x, y = x - overlap * across_x, y - overlap * across_y
    x = x.abs()
    y = y - 1.0
    inner = 0.5
    edge_x, edge_y = inner * math.sin(math.radians(36)), inner * math.cos(math.radians(36)) - 1
    along = ((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2)).clamp(0, 1)
    distance = length(x - along * edge_x, y - along * edge_y)
    return torch.where(y * edge_x - x * edge_y > 0, distance, -distance)


def heart(x: Tensor, y: Tensor) -> Tensor:
    """Two circle arcs above two slanted lines."""
    size = 1.5
    x, y = x.abs() / size, (0.9 - y) / size
    lobe = length(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    foot = (x + y).clamp(min=0) / 2
    sides = torch.minimum(length(x, y - 1), length(x - foot, y - foot))
    sides = torch.where(x > y, sides, -sides)
    return torch.where(x + y > 1, lobe, sides) * size


def length(x: Tensor, y: Tensor) -> Tensor:
    """Distance from the origin."""
    return (x * x + y * y).sqrt()


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    x, y = x.abs() - half_width, y.abs() - half_height
    return length(x.clamp(min=0), y.clamp(min=0)) + torch.maximum(x, y).clamp(max=0)


def _pointed(x: Tensor, y: Tensor, *, top: float, bottom: float, half: float) -> Tensor:
    """A triangle with its tip at `top` and a base of twice `half` at `bottom`."""
    high = bottom - top
    slant = math.hypot(high, half)
    return torch.maximum((x.abs() * high - (y - top) * half) / slant, y - bottom)


# name -> its distance, and how far from the middle its marks are
SHAPES: dict[str, tuple[Shape, float]] = {
    "circle": (circle, 0.56),
    "square": (square, 0.46),
    "triangle": (triangle, 0.26),
    "star": (star, 0.40),
    "cross": (cross, 0.60),
    "ring": (ring, 0.66),
    "arrow": (arrow, 0.40),
    "drop": (drop, 0.30),
    "heart": (heart, 0.42),
}
