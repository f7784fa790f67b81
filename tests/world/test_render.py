"""Pixels: the same in every batch and on every device, where the truth says, in the colours that the words say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.world import Background, Scene, Thing, Variety, draw, render, rules
from i2vgen_ms.world.motion import track

GROUND = Background("grey", "smooth", 0, 0.5, (0, 0))
PATTERN = Background("grey", "spots", 0, 0.5, (0.1, 0.2))
DISC = Thing("circle", "red", "plain", "rest", -0.25, 0.125, 0.2)


def still(thing: Thing = DISC, ground: Background = GROUND) -> Scene:
    return Scene((thing,), ground)


def test_a_scene_is_the_same_bits_in_every_batch() -> None:
    scenes = [draw(5, index, variety=Variety(pairs=0.5, cameras=0.4, shapes=rules.SHAPES)) for index in range(13)]
    together = render(scenes, frames=5, width=70, height=36)
    assert together.shape == (13, 5, 36, 70, 3)
    assert together.dtype == torch.float32
    for index, scene in enumerate(scenes):
        assert torch.equal(render([scene], frames=5, width=70, height=36)[0], together[index]), scene
    backwards = render(scenes[::-1], frames=9, width=70, height=36)
    assert torch.equal(backwards.flip(0)[:, :5], together)
    assert float(together.min()) >= -1
    assert float(together.max()) <= 1


def test_nothing_is_read_back_from_the_device() -> None:
    scenes = [draw(5, index, variety=Variety(pairs=1.0, cameras=1.0, shapes=("circle", "arrow"))) for index in range(3)]
    assert render(scenes, frames=2, device="meta").shape == (3, 2, 64, 128, 3)  # a meta tensor cannot be read


def test_frames_are_counted_from_the_first_at_the_rate() -> None:
    scenes = [draw(5, index) for index in range(2)]
    every = render(scenes, frames=9, fps=8)
    assert torch.equal(render(scenes, frames=3, fps=2), every[:, ::4])
    assert torch.equal(render(scenes, frames=3, fps=[8, 4])[1], every[1, [0, 2, 4]])
    assert torch.equal(render(scenes, times=[0.5, 1.0]), every[:, [4, 8]])
    assert torch.equal(render(scenes, times=[[0.0], [0.5]])[1], every[1, 4:5])


def colour_at(pixels: Tensor, x: float, y: float) -> list[float]:
    """RGB in [0, 1] of a frame `h w c` at a place of the room of 2 by 1."""
    height = pixels.shape[0]
    return ((pixels[int((y + 0.5) * height), int((x + 1) * height)] + 1) / 2).tolist()


def test_a_thing_has_its_colour_and_its_place() -> None:
    frame = render([still()], frames=1)[0, 0]
    red = (frame[..., 0] - frame[..., 1]) > 0.6
    rows, columns = torch.nonzero(red, as_tuple=True)
    assert float(columns.float().mean() + 0.5) / 64 - 1 == pytest.approx(DISC.x, abs=0.002)
    assert float(rows.float().mean() + 0.5) / 64 - 0.5 == pytest.approx(DISC.y, abs=0.002)
    assert len(rows) == pytest.approx(torch.pi * (0.92 * 0.2 * 64) ** 2, rel=0.05)
    for name, colour in rules.COLOURS.items():
        seen = colour_at(render([still(replace(DISC, colour=name))], frames=1)[0, 0], DISC.x, DISC.y)
        assert seen == pytest.approx(colour, abs=0.02)
    for name, colour in rules.BACKGROUNDS.items():
        seen = colour_at(render([still(DISC, replace(GROUND, colour=name))], frames=1)[0, 0], 0.0, -0.3)
        assert seen == pytest.approx(colour, abs=0.02)


@pytest.mark.parametrize("shape", rules.SHAPES)
def test_edges_are_smooth_a_larger_picture_shows_the_same(shape: str) -> None:
    scenes = [still(replace(DISC, shape=shape, texture=texture, angle=20.0)) for texture in rules.TEXTURES]
    small, large = render(scenes, frames=1)[:, 0], render(scenes, frames=1, width=512, height=256)[:, 0]
    halved = large.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).mean((2, 4))
    difference = (small - halved).abs()
    assert float(difference.max()) < 0.5
    assert float(difference.mean()) < 0.004
    assert len(torch.unique(small[0, ..., 0])) > 40


def test_textures_and_patterns_differ() -> None:
    textures = [render([still(replace(DISC, texture=name))], frames=1) for name in rules.TEXTURES]
    patterns = [render([still(DISC, replace(PATTERN, pattern=name))], frames=1) for name in rules.PATTERNS]
    for pictures in (textures, patterns):
        for i, one in enumerate(pictures):
            for other in pictures[:i]:
                assert float((one - other).abs().max()) > 0.08


def moment(frame: Tensor, value: float) -> tuple[float, float]:
    """Where the pixels of this grey level, in [0, 1], are on average, from the thing's middle."""
    hits = (((frame + 1) / 2 - value).abs().amax(-1) < 0.1).nonzero().float().mean(0)
    return float(hits[1] + 0.5) / 64 - 1 - DISC.x, float(hits[0] + 0.5) / 64 - 0.5 - DISC.y


@pytest.mark.parametrize("shape", ["circle", "arrow", "ring"])
@pytest.mark.parametrize("heading", range(8))
def test_a_white_mark_is_where_a_gliding_thing_goes(shape: str, heading: int) -> None:
    thing = replace(DISC, shape=shape, motion="glide", heading=heading)
    frame = render([still(thing)], frames=1)[0, 0]
    x, y = moment(frame, 0.98)
    assert np.degrees(np.arctan2(y, x)) % 360 == pytest.approx(45 * heading, abs=6) or (
        heading == 0 and y == pytest.approx(0, abs=0.01) and x > 0
    )


def test_the_mark_turns_round_at_the_wall() -> None:
    clip = render([still(replace(DISC, y=0.25, motion="glide", heading=2))], frames=5)[0]
    offsets = []
    for frame, there in zip(
        clip, track(still(replace(DISC, y=0.25, motion="glide", heading=2)), np.arange(5) / 8).y[0], strict=True
    ):
        offsets.append(moment(frame, 0.98)[1] + DISC.y - there)
    assert offsets[0] == pytest.approx(0.2 * 0.56, abs=0.015)
    assert offsets[-1] == pytest.approx(-0.2 * 0.56, abs=0.015)


@pytest.mark.parametrize("turn", [1, -1])
def test_what_spins_turns_from_the_black_mark_to_the_white_one(turn: int) -> None:
    clip = render([still(replace(DISC, motion="spin", turn=turn))], frames=9)[0]
    white, black = ([np.degrees(np.arctan2(*moment(frame, value)[::-1])) for frame in clip] for value in (0.98, 0.05))
    assert (white[0] - black[0]) % 360 == pytest.approx(90 if turn == 1 else 270, abs=20)  # rims cover each other
    assert (white[8] - white[0]) % 360 == pytest.approx(90 if turn == 1 else 270, abs=5)


@pytest.mark.parametrize(("motion", "value"), [("grow", 0.98), ("shrink", 0.05)])
def test_a_mark_in_the_middle_says_that_the_size_will_change(motion: str, value: float) -> None:
    clip = render([still(replace(DISC, motion=motion))], frames=9)[0]
    assert moment(clip[0], value) == pytest.approx((0, 0), abs=0.003)
    red = ((clip[..., 0] - clip[..., 1]) > 0.6).sum((1, 2))
    assert (red[-1] > 1.3 * red[0]) if motion == "grow" else (red[-1] < 0.7 * red[0])


def test_what_rests_has_no_mark_and_does_not_move() -> None:
    clip = render([still()], frames=3)[0]
    assert torch.equal(clip[0], clip[2])
    assert not ((clip[0].min(-1).values > 0.9) | (clip[0].max(-1).values < -0.85)).any()


@pytest.mark.parametrize("camera", rules.CAMERAS)
def test_bars_say_what_the_camera_does_and_the_background_does_it(camera: str) -> None:
    frames = render([Scene((DISC,), PATTERN, camera)], frames=5)[0]
    bare = render([Scene((DISC,), PATTERN, "still")], frames=1)[0, 0]
    white, black = ((frames[0] - bare).amax(-1) > 0.3), ((frames[0] - bare).amin(-1) < -0.9)
    sides = {"right": (32, -4), "left": (32, 3), "down": (-4, 64), "up": (3, 64)}
    lit = {side for side, (row, column) in sides.items() if white[row, column]}
    dark = {side for side, (row, column) in sides.items() if black[row, column]}
    assert lit == {"still": set(), "zoom in": set(sides), "zoom out": set()}.get(camera, {camera.rpartition(" ")[2]})
    assert dark == (set(sides) if camera == "zoom out" else set())
    moved = frames[-1, 10:-10, 10:-10] - frames[0, 10:-10, 10:-10]
    assert (float(moved.abs().max()) > 0.3) == (camera != "still")


def test_a_panning_camera_shifts_the_picture_against_its_way() -> None:
    scene = Scene((DISC,), PATTERN, "pan right")
    pixels = rules.PAN_SPEED * 64
    first, later = render([scene], times=[0.0, 12 / pixels])[0, :, 8:-8]
    torch.testing.assert_close(later[:, 20:80], first[:, 32:92], atol=2e-5, rtol=0)


@pytest.mark.parametrize("camera", ["zoom in", "zoom out"])
def test_a_zooming_camera_scales_the_picture_around_its_middle(camera: str) -> None:
    scene = Scene((replace(DISC, motion="spin"),), PATTERN, camera)
    seconds = 0.2 / rules.ZOOM_SPEED
    first, later = (
        render([replace(scene)], times=[at], acting=[acting])[:, 0]
        for at, acting in ((0.0, scene), (seconds, replace(scene, things=(DISC,))))
    )
    small, large = (later, first) if camera == "zoom out" else (first, later)
    grid = torch.nn.functional.affine_grid(torch.eye(2, 3)[None] / 1.2, [1, 3, 64, 128], align_corners=False)
    enlarged = torch.nn.functional.grid_sample(small.permute(0, 3, 1, 2), grid, align_corners=False).permute(0, 2, 3, 1)
    assert float((enlarged - large)[0, 12:-12, 12:-12].abs().mean()) < 0.015


@pytest.mark.parametrize("shape", ["circle", "arrow"])
def test_things_can_play_the_motion_of_others(shape: str) -> None:
    thing = replace(DISC, motion="glide", heading=6, shape=shape)
    acting = replace(thing, heading=0)
    clip = render([still(thing)], acting=[still(acting)], frames=5)[0]
    assert torch.equal(clip[0], render([still(thing)], frames=1)[0, 0])
    red = [((frame[..., 0] - frame[..., 1]) > 0.6).nonzero().float().mean(0) for frame in clip]
    assert float(red[-1][1] - red[0][1]) == pytest.approx(rules.GLIDE_SPEED * 64 / 2, abs=0.2)
    assert float(red[-1][0] - red[0][0]) == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize(
    "given",
    [
        {"scenes": []},
        {"frames": 0},
        {"width": 0},
        {"fps": 0},
        {"fps": [1, 2, 3]},
        {"times": []},
        {"times": [[1.0]] * 3},
    ],
)
def test_what_is_no_clip_is_refused(given: dict) -> None:
    with pytest.raises(ArgumentError):
        render(**{"scenes": [still(), still()], **given})
