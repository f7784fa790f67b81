"""The measures of motion: right about the truth, also when it is degraded; wrong about everything else."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.world import STANDARD, Scene, draw, render, rules
from i2vgen_ms.world.measure import direction_accuracy, directions, find, motion_accuracy, motions, place_error
from i2vgen_ms.world.motion import track

GLIDING = replace(STANDARD, motions={"glide": 1.0}, cameras=0.0, shapes=rules.SHAPES)
SCENES = [draw(21, index, split="held-out", variety=GLIDING) for index in range(28)]
CLIPS = render(SCENES, frames=12)  # 1.4 s
KINDS = ("glide", "spin", "grow", "shrink", "rest", "pan up", "zoom out")


def shows(scene: Scene, kind: str) -> bool:
    return scene.camera == kind or (scene.camera == "still" and scene.things[0].motion == kind)


MANY = [draw(22, index) for index in range(100)]
ALL = [next(scene for scene in MANY if shows(scene, kind)) for kind in KINDS]


def noisy(clips: Tensor) -> Tensor:
    return clips + 0.2 * torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))


def blurred(clips: Tensor) -> Tensor:
    rows = F.avg_pool2d(clips.flatten(0, 1).movedim(-1, 1), 5, 1, 2, count_include_pad=False)
    return rows.movedim(1, -1).unflatten(0, clips.shape[:2])


def as_jpeg(clips: Tensor) -> Tensor:
    degraded = []
    for frame in clips.mul(127.5).add(127.5).round().byte().flatten(0, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=25)
        degraded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(degraded)).unflatten(0, clips.shape[:2]) / 127.5 - 1


def faded(clips: Tensor) -> Tensor:
    return clips * 0.7 + 0.1


@pytest.mark.parametrize("degraded", [Tensor.clone, noisy, blurred, as_jpeg, faded])
def test_true_clips_are_right(degraded: Callable[[Tensor], Tensor]) -> None:
    verdicts = directions(degraded(CLIPS), SCENES)
    assert len(verdicts) == sum(len(scene.things) for scene in SCENES) > 30
    assert all(verdicts)


def test_a_frozen_or_reversed_video_scores_nothing() -> None:
    assert direction_accuracy(CLIPS[:, :1].expand_as(CLIPS), SCENES) == 0
    assert direction_accuracy(CLIPS.flip(1), SCENES) == 0


@pytest.mark.parametrize("turn", range(1, 8))
def test_another_direction_is_wrong(turn: int) -> None:
    """Things in the middle, so that a wall does not send them where they should have gone."""
    scene = next(scene for scene in SCENES if len(scene.things) == 1)
    thing = replace(scene.things[0], shape="circle", x=0.0, y=0.0, radius=0.2)
    scenes = [replace(scene, things=(replace(thing, heading=heading),)) for heading in range(8)]
    acting = [replace(scene, things=(replace(thing, heading=(heading + turn) % 8),)) for heading in range(8)]
    assert direction_accuracy(render(scenes), scenes) == 1
    assert direction_accuracy(render(scenes, acting=acting), scenes) == 0


def test_half_the_right_clips_give_half() -> None:
    single = [index for index, scene in enumerate(SCENES) if len(scene.things) == 1][:8]
    clips = CLIPS[single]
    clips[::2] = clips[::2, :1]
    assert direction_accuracy(clips, [SCENES[index] for index in single]) == 0.5


def test_what_is_lost_or_too_slow_is_wrong() -> None:
    scenes = SCENES[:6]
    empty = render([replace(scene, things=()) for scene in scenes], frames=12)
    assert direction_accuracy(empty, scenes) == 0
    assert torch.stack([path.x for paths in find(empty, scenes) for path in paths]).isnan().all()
    vanishing = torch.cat([CLIPS[:6, :6], empty[:, 6:]], dim=1)
    assert direction_accuracy(vanishing, scenes) == 0
    slow = render(scenes, fps=8 / 0.4)
    assert direction_accuracy(slow, scenes) == 0
    assert direction_accuracy(slow, scenes, fps=8 / 0.4) == 1


def test_places_are_found_at_any_size() -> None:
    scenes = SCENES[:4]
    for width, height in ((128, 64), (256, 128)):
        found = find(render(scenes, width=width, height=height), scenes)
        for scene, paths in zip(scenes, found, strict=True):
            truth = track(scene, np.arange(16) / 8)
            for number, path in enumerate(paths):
                assert float((path.x - torch.tensor(truth.x[number])).abs().max()) < 0.08
                assert float((path.y - torch.tensor(truth.y[number])).abs().max()) < 0.08


def test_the_place_error_is_small_for_the_truth_only() -> None:
    scenes, clips = SCENES[:8], render(SCENES[:8])
    assert place_error(clips, scenes) < 0.06
    assert 0.2 < place_error(clips[:, :1].expand_as(clips), scenes) < 0.5
    assert place_error(render([replace(scene, things=()) for scene in scenes]), scenes) == 1


@pytest.fixture(scope="module")
def whole() -> Tensor:
    return render(ALL, frames=9)


def test_motions_of_every_kind_are_told_apart(whole: Tensor) -> None:
    assert motions(noisy(blurred(whole)), ALL) == [True] * len(ALL)


def test_a_plain_ring_may_spin_when_it_should_rest() -> None:
    ring = replace(ALL[4].things[0], shape="ring", texture="plain", motion="rest")
    scene = replace(ALL[4], things=(ring,), camera="still")
    assert motions(noisy(render([scene, scene])), [scene, scene]) == [True, True]


def test_wrong_motions_are_wrong(whole: Tensor) -> None:
    moving = [KINDS.index(kind) for kind in ("glide", "spin", "grow", "zoom out")]
    scenes = [ALL[index] for index in moving]
    assert motion_accuracy(whole[moving].flip(1), scenes) == 0
    assert motion_accuracy(whole[moving, :1].expand_as(whole[moving]), scenes) == 0


def test_growth_that_is_shown_backwards_is_wrong() -> None:
    scenes = [scene for scene in MANY if shows(scene, "shrink") and len(scene.things) == 1][:2]
    assert motion_accuracy(render(scenes, frames=9).flip(1), scenes) == 0


def test_another_camera_is_wrong() -> None:
    scene = replace(ALL[KINDS.index("pan up")], things=())
    acting = [replace(scene, camera=camera) for camera in rules.CAMERAS]
    verdicts = motions(render([scene] * len(acting), acting=acting, frames=9), [scene] * len(acting))
    assert verdicts == [camera == "pan up" for camera in rules.CAMERAS]


def test_where_nothing_glides_there_is_no_accuracy() -> None:
    scene = replace(SCENES[0], things=(replace(SCENES[0].things[0], motion="rest"),))
    assert math.isnan(direction_accuracy(render([scene]), [scene]))
    assert math.isnan(place_error(render([scene]), [scene]))


@pytest.mark.parametrize("shape", [(1, 1, 64, 128, 3), (2, 4, 64, 128, 3), (1, 4, 3, 64, 128), (1, 64, 128, 3)])
def test_what_is_no_video_of_the_scenes_is_refused(shape: tuple[int, ...]) -> None:
    for measure in (direction_accuracy, motion_accuracy):
        with pytest.raises(ArgumentError, match="at least two frames"):
            measure(torch.zeros(shape), SCENES[:1])
