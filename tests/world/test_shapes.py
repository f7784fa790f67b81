"""Outlines: inside is inside, nothing sticks out, and distances are distances."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.world import rules
from i2vgen_ms.world.shapes import SHAPES

AXIS = torch.linspace(-1.4, 1.4, 281)
Y, X = torch.meshgrid(AXIS, AXIS, indexing="ij")


def test_there_is_an_outline_for_every_name() -> None:
    assert tuple(SHAPES) == rules.SHAPES


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_fills_its_circle_and_no_more(name: str) -> None:
    inside = SHAPES[name][0](X, Y) < 0
    away = (X * X + Y * Y).sqrt()[inside]
    assert 0.85 < float(away.max()) <= 1.04
    assert 0.5 < float(inside.sum()) * 0.01**2 < 3.0


@pytest.mark.parametrize("name", SHAPES)
def test_a_distance_changes_no_faster_than_the_place(name: str) -> None:
    distance = SHAPES[name][0](X, Y)
    near = distance.abs() < 0.15
    across, down = (torch.gradient(distance, spacing=0.01, dim=dim)[0] for dim in (1, 0))
    slope = (across * across + down * down).sqrt()[near]
    assert float(slope.max()) < 1.05
    assert float(slope.median()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("ring", [(0.66, 0), (0, -0.66)], [(0, 0), (0.98, 0)]),
        ("arrow", [(0, -0.9), (0.6, 0), (0, 0.8)], [(0.5, 0.4), (0.5, -0.8)]),
        ("drop", [(0, -0.9), (0.5, 0.4)], [(0.4, -0.7), (0, 1.0)]),
        ("heart", [(0.5, -0.5), (0, 0.8)], [(0, -0.7), (0.7, 0.6)]),
        ("star", [(0, -0.95), (0, 0.4)], [(0.5, -0.6), (0, 0.9)]),
        ("cross", [(0.85, 0), (0, 0.85)], [(0.6, 0.6)]),
        ("triangle", [(0, -0.9), (0.5, 0.65)], [(0.5, -0.5), (0, 0.8)]),
        ("square", [(0.7, 0.7)], [(0.8, 0)]),
        ("circle", [(0.6, 0.6)], [(0.7, 0.7)]),
    ],
)
def test_shapes_are_what_they_are_called(name: str, inside: list, outside: list) -> None:
    x, y = torch.tensor(inside + outside, dtype=torch.float32).T
    assert (SHAPES[name][0](x, y) < 0).tolist() == [True] * len(inside) + [False] * len(outside)
