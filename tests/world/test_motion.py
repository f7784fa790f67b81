"""The truth about motion: where things are, how they are turned, what the camera sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from i2vgen_ms.world import Scene, Thing, rules
from i2vgen_ms.world.motion import fold, track, views
from i2vgen_ms.world.scene import Background

GROUND = Background("grey", "smooth", 0, 0.5, (0, 0))
CIRCLE = Thing("circle", "red", "plain", "glide", 0.0, 0.0, 0.2)
TIMES = np.array([0.0, 1.0, 2.0, 4.0])


def one(thing: Thing, times: np.ndarray = TIMES):
    return track(Scene((thing,), GROUND), times)


@pytest.mark.parametrize(
    ("way", "place", "sign"),
    [(0, 2, 1), (1, 3, 1), (2.5, 3.5, -1), (4, 2, -1), (5.5, 1.5, 1), (-1.5, 1.5, 1), (12, 2, 1)],
)
def test_fold_throws_back_at_both_walls(way: float, place: float, sign: float) -> None:
    where, direction = fold(2.0, np.array([way]), 1.0, 4.0)
    assert where == pytest.approx(place)
    if way > 0:
        assert direction == sign


def test_gliding_is_even_and_turns_round_at_the_wall() -> None:
    there = one(replace(CIRCLE, x=0.5, heading=0))
    wall = 1.0 - 0.2
    speed = rules.GLIDE_SPEED
    np.testing.assert_allclose(
        there.x[0], [0.5, wall - (0.5 + speed - wall), wall - (0.5 + 2 * speed - wall), wall - (0.5 + 4 * speed - wall)]
    )
    np.testing.assert_allclose(there.y, 0)
    np.testing.assert_array_equal(there.front[0] % 360, [0, 180, 180, 180])
    assert (there.angle == 0).all()


def test_a_diagonal_keeps_its_speed_and_turns_in_one_direction_only() -> None:
    there = one(replace(CIRCLE, y=0.1, heading=1), np.arange(9) / 8)
    steps = np.hypot(np.diff(there.x[0]), np.diff(there.y[0])) * 8
    assert steps.max() == pytest.approx(rules.GLIDE_SPEED)
    np.testing.assert_array_equal(np.unique(there.front), [-45, 45])


def test_pointed_things_point_where_they_go() -> None:
    there = one(replace(CIRCLE, shape="arrow", x=0.5, heading=0, angle=13.0))
    np.testing.assert_array_equal(there.angle[0] % 360, [90, 270, 270, 270])


def test_walls_of_the_right_half_hold() -> None:
    there = one(replace(CIRCLE, x=0.5, left=0.0, right=1.0, heading=4), np.linspace(0, 9, 200))
    assert there.x.min() == pytest.approx(0.2, abs=0.01)
    assert there.x.max() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("turn", [1, -1])
def test_spinning_turns_on_the_spot(turn: int) -> None:
    there = one(replace(CIRCLE, motion="spin", angle=45.0, turn=turn))
    np.testing.assert_allclose(there.angle[0], 45 + turn * rules.SPIN_SPEED * TIMES)
    np.testing.assert_allclose(there.x, 0)
    np.testing.assert_allclose(there.radius, 0.2)


def test_growing_and_shrinking_stay_within_their_limits() -> None:
    times = np.linspace(0, 12, 400)
    grown, shrunk = (one(replace(CIRCLE, motion=motion), times).radius[0] for motion in ("grow", "shrink"))
    np.testing.assert_allclose(grown[:5], 0.2 + rules.GROWTH_SPEED * times[:5])
    np.testing.assert_allclose(shrunk[:5], 0.2 - rules.GROWTH_SPEED * times[:5])
    for radius in (grown, shrunk):
        assert (radius.min(), radius.max()) == pytest.approx(rules.RADIUS_LIMITS, abs=0.002)


def test_cameras_go_where_they_say_and_come_back() -> None:
    names = ["still", "pan right", "pan down", "pan left", "pan up", "zoom in", "zoom out"]
    times = np.broadcast_to([0.0, 1.0, rules.PAN_LIMIT / rules.PAN_SPEED * 2, 1.0], (7, 4))
    view = views(names, times)
    way = rules.PAN_SPEED
    np.testing.assert_allclose(view.x[:, 1], [0, way, 0, -way, 0, 0, 0])
    np.testing.assert_allclose(view.y[:, 1], [0, 0, way, 0, -way, 0, 0])
    np.testing.assert_allclose(view.zoom[:, 1], [1, 1, 1, 1, 1, 1 + rules.ZOOM_SPEED, 1 / (1 + rules.ZOOM_SPEED)])
    np.testing.assert_allclose(view.x[:, 2], 0, atol=1e-12)
    assert (view.zoom[:, 0] == 1).all()
