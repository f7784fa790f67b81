"""Scenes: streams that never end and never meet, rules that every scene keeps, captions that CLIP can read."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.world import STANDARD, Scene, Variety, draw, rules
from i2vgen_ms.world.motion import track, views
from i2vgen_ms.world.scene import Background, Thing

SCENES = [draw(11, index) for index in range(600)]
TIMES = np.arange(16) / 8


def test_a_scene_is_its_seed_its_index_and_its_split() -> None:
    assert draw(11, 5) == SCENES[5]
    places = {(scene.things[0].x, scene.things[0].y) for scene in SCENES}
    others = {
        (scene.things[0].x, scene.things[0].y)
        for seed, split in ((11, "held-out"), (12, "train"), (2**62, "train"))
        for scene in (draw(seed, index, split=split) for index in range(200))
    }
    assert len(places) == 600
    assert len(others) == 600
    assert not places & others


def test_a_scene_is_the_same_on_every_machine_and_for_ever() -> None:
    scene = draw(7, 2**40, split="held-out")
    assert scene.caption == (
        "a purple striped triangle moving down and to the left and a yellow checked arrow moving down and to the left "
        "over a blue background"
    )
    assert scene.things[0].x == pytest.approx(-0.2017700126604305, abs=1e-14)


def test_shares_of_what_is_drawn_are_those_of_the_variety() -> None:
    count = len(SCENES)
    assert sum(len(scene.things) == 2 for scene in SCENES) / count == pytest.approx(STANDARD.pairs, abs=0.05)
    assert sum(scene.camera != "still" for scene in SCENES) / count == pytest.approx(STANDARD.cameras, abs=0.05)
    things = [thing for scene in SCENES if scene.camera == "still" for thing in scene.things]
    motions = Counter(thing.motion for thing in things)
    for motion, share in STANDARD.motions.items():
        assert motions[motion] / len(things) == pytest.approx(share, abs=0.05)
    for field, names in (("shape", STANDARD.shapes), ("colour", STANDARD.colours), ("texture", STANDARD.textures)):
        seen = Counter(getattr(thing, field) for thing in things)
        assert set(seen) == set(names)
        assert min(seen.values()) > 0.6 * len(things) / len(names)
    assert {thing.heading for thing in things if thing.motion == "glide"} == set(range(8))
    assert {scene.camera for scene in SCENES} == set(rules.CAMERAS)


def test_hearts_are_held_out_and_can_be_asked_for_alone() -> None:
    assert "heart" not in {thing.shape for scene in SCENES for thing in scene.things}
    hearts = [draw(11, index, variety=Variety(shapes=("heart",))) for index in range(30)]
    assert {thing.shape for scene in hearts for thing in scene.things} == {"heart"}


@pytest.mark.parametrize("aspect", [2.0, 1.0, 0.5])
def test_things_stay_in_the_picture_and_apart(aspect: float) -> None:
    for scene in (draw(3, index, aspect=aspect) for index in range(300)):
        assert (scene.width, scene.height) == (max(aspect, 1), max(1 / aspect, 1))
        there, view = track(scene, TIMES), views([scene.camera], TIMES[None])
        x, y, radius = (
            (value - at) * view.zoom for value, at in ((there.x, view.x), (there.y, view.y), (there.radius, 0))
        )
        assert (np.abs(x) + radius <= scene.width / 2 + 1e-9).all(), scene
        assert (np.abs(y) + radius <= scene.height / 2 + 1e-9).all(), scene
        if len(scene.things) == 2:
            assert (x[0] + radius[0] <= x[1] - radius[1] + 1e-9).all(), scene
        assert len(scene.things) == 1 or aspect >= 1.6


def test_sizes_are_what_latents_can_hold() -> None:
    first = [64 * 2 * thing.radius for scene in SCENES for thing in scene.things]
    assert min(first) >= 18
    assert max(first) <= 36


def test_no_gliding_thing_meets_a_wall_at_first() -> None:
    times = np.linspace(0, rules.CLEAR_SECONDS, 6)
    for scene in SCENES:
        there = track(scene, times)
        for number, thing in enumerate(scene.things):
            if thing.direction is not None:
                way = np.outer(times, thing.direction) * rules.GLIDE_SPEED
                np.testing.assert_allclose(there.x[number] - thing.x, way[:, 0], atol=1e-12)
                np.testing.assert_allclose(there.y[number] - thing.y, way[:, 1], atol=1e-12)
            else:
                assert np.ptp(there.x) == 0 or len(scene.things) == 2


def test_a_moving_camera_is_the_only_motion_or_beside_a_spin() -> None:
    moving = [scene for scene in SCENES if scene.camera != "still"]
    assert {thing.motion for scene in moving for thing in scene.things} == {"spin", "rest"}
    assert {scene.background.pattern for scene in moving} == {"waves", "spots"}


def test_captions_say_what_is_seen() -> None:
    ground = Background("blue", "waves", 0, 0.5, (0, 0))
    arrow = Thing("arrow", "orange", "stripes", "glide", -0.5, 0, 0.2, heading=7)
    ring = Thing("ring", "green", "plain", "spin", 0.5, 0, 0.2, turn=-1)
    assert Scene((arrow, ring), ground, "zoom in").caption == (
        "an orange striped arrow moving up and to the right and a green ring turning counter-clockwise "
        "over a wavy blue background, the camera zooms in"
    )
    texts = {scene.caption for scene in SCENES}
    assert len(texts) > 550
    for words in ("growing", "shrinking", "resting", "turning clockwise", "the camera moves down", "checked", "dotted"):
        assert any(words in text for text in texts)


def test_captions_fit_in_the_77_tokens_of_clip() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    scenes = [
        draw(11, index, variety=Variety(pairs=pairs, cameras=1 - pairs)) for index in range(200) for pairs in (0, 1)
    ]
    longest = max(len(tokenizer.encode(scene.caption)) for scene in scenes)
    assert 25 < longest <= 75  # and two for start and end


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shapes": ("hart",)}, "did you mean 'heart'"),
        ({"colours": ()}, "without any colour"),
        ({"motions": {"glide": 0.0}}, "above 0"),
        ({"pairs": 1.5}, "0 to 1, not 1.5"),
    ],
)
def test_a_variety_that_cannot_be_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Variety(**given)


@pytest.mark.parametrize(
    "given", [{"seed": -1, "index": 0}, {"seed": 0, "index": -1}, {"seed": 0, "index": 0, "aspect": 9}]
)
def test_numbers_out_of_range_are_refused(given: dict) -> None:
    with pytest.raises(ArgumentError, match=r"not -1|not 9"):
        draw(**given)
