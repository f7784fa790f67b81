"""Whether a video moves as its scene says, judged from pixels.

Given videos `b f h w c` in [-1, 1] at any size, and the scenes that their first frames show. Directions are read off
the pixels of a thing's colour; whole motions are judged by synthesis: which of all motions, played by the same things,
comes nearest. It does not know where a video comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.world import rules
from i2vgen_ms.world.motion import track
from i2vgen_ms.world.render import render
from i2vgen_ms.world.scene import Scene, Thing

_BLUR = 0.06  # over how many units differences are averaged, twice
_LEAST_SHARE = 0.2  # of the way from the background's colour to the thing's
_LEAST_AREA = 0.1  # of the thing's radius squared; a shape has 1.2 to 2.7, and its texture less
_LEAST_SPEED = 0.5  # of the true speed
_LEAST_SEEN = 0.75  # of the frames
_LEAST_DIFFERENCE = 1e-6  # mean squared, of two motions that can be told apart


@dataclass(frozen=True)
class Path:
    """Where a thing was seen: x and y in units of the world, `f`; NaN where it was not."""

    x: Tensor
    y: Tensor


def find(video: Tensor, scenes: Sequence[Scene], *, fps: float = 8) -> list[list[Path]]:
    """Where each thing of each scene is in each frame: the middle of what has its colour, between its walls.

    The truth about the background is used, nothing of the truth about the motion.
    """
    _check(video, scenes)
    frames, height, width = video.shape[1:4]
    bare = [replace(scene, things=()) for scene in scenes]
    rooms = render(bare, frames=frames, width=width, height=height, fps=fps, device=video.device)
    return [
        [_find(clip, empty, scene, thing) for thing in scene.things]
        for clip, empty, scene in zip(video, rooms, scenes, strict=True)
    ]


def directions(video: Tensor, scenes: Sequence[Scene], *, fps: float = 8) -> list[bool]:
    """For each gliding thing, in order, whether it moves the way that the first frame says.

    It does if, in the time in which it cannot have met a wall, it is seen in most frames and its velocity (by least
    squares) is nearer to its own heading than to the seven others, and at least half as fast as it should be.
    """
    return [
        _sets_off(path, thing, fps)
        for scene, paths in zip(scenes, find(video, scenes, fps=fps), strict=True)
        for thing, path in zip(scene.things, paths, strict=True)
        if thing.direction is not None
    ]


def direction_accuracy(video: Tensor, scenes: Sequence[Scene], *, fps: float = 8) -> float:
    """The share of gliding things that `directions` finds right, 0 to 1; NaN if nothing glides."""
    return _share(directions(video, scenes, fps=fps))


def place_error(video: Tensor, scenes: Sequence[Scene], *, fps: float = 8) -> float:
    """Mean distance of gliding things from where they should be, over all frames, in units of the world.

    A thing that is not seen in a frame counts as far away as the room is high. NaN if nothing glides.
    """
    errors = []
    for scene, paths in zip(scenes, find(video, scenes, fps=fps), strict=True):
        truth = track(scene, np.arange(video.shape[1]) / fps)
        for number, (thing, path) in enumerate(zip(scene.things, paths, strict=True)):
            if thing.direction is not None:
                x, y = torch.tensor(truth.x[number]), torch.tensor(truth.y[number])
                away = torch.hypot(path.x - x, path.y - y)
                errors.append(float(away.nan_to_num(scene.height).clamp(max=scene.height).mean()))
    return float(np.mean(errors)) if errors else float("nan")


def motions(video: Tensor, scenes: Sequence[Scene], *, fps: float = 8) -> list[bool]:
    """For each clip, whether its motion is the scene's, judged by synthesis.

    Every other motion is rendered, of one thing or of the camera at a time, with what the first frame shows, and the
    truth backwards; a clip is right if none is nearer to it (in mean squared difference) than the truth.
    """
    _check(video, scenes)
    frames, height, width = video.shape[1:4]
    verdicts = []
    for clip, scene in zip(video, scenes, strict=True):
        played = [scene, *_others(scene)]
        shown = render(
            [scene] * len(played),
            frames=frames,
            width=width,
            height=height,
            fps=fps,
            device=video.device,
            acting=played,
        )
        shown = torch.cat([shown, shown[:1].flip(1)])
        shown, seen = _smoothed(shown), _smoothed(clip[None].float())
        distance = (shown - seen).square().mean((1, 2, 3, 4))
        differs = (shown - shown[:1]).square().mean((1, 2, 3, 4)) > _LEAST_DIFFERENCE  # a plain ring spins unseen
        verdicts.append(not bool((differs & (distance <= distance[0])).any()))
    return verdicts


def motion_accuracy(video: Tensor, scenes: Sequence[Scene], *, fps: float = 8) -> float:
    """The share of clips that `motions` finds right, 0 to 1."""
    return _share(motions(video, scenes, fps=fps))


def _check(video: Tensor, scenes: Sequence[Scene]) -> None:
    if video.ndim != 5 or video.shape[-1] != 3 or len(video) != len(scenes) or video.shape[1] < 2:
        raise ArgumentError(
            f"videos are `b f h w 3` with at least two frames, one for each of the {len(scenes)} scenes, "
            f"not {tuple(video.shape)}"
        )


def _share(verdicts: list[bool]) -> float:
    return sum(verdicts) / len(verdicts) if verdicts else float("nan")


def _find(frames: Tensor, empty: Tensor, scene: Scene, thing: Thing) -> Path:
    """Looks for the thing in `frames`, `f h w c`: how far their colours are from the `empty` room's to its own."""
    _, height, width, _ = frames.shape
    scale = min(width / scene.width, height / scene.height)
    x = (torch.arange(width, device=frames.device) + (0.5 - width / 2)) / scale
    y = (torch.arange(height, device=frames.device) + (0.5 - height / 2)) / scale
    colour = torch.tensor(rules.COLOURS[thing.colour], device=frames.device) * 2 - 1
    way = _chroma(colour) - _chroma(empty)
    share = ((_chroma(frames.float()) - _chroma(empty)) * way).sum(-1) / way.square().sum(-1)
    # smoothed before what is small is cut off, or noise all over the picture would pull to its middle
    size = 2 * round(_BLUR * scale / 2) + 1
    for _ in range(2):
        share = F.avg_pool2d(share[:, None], size, stride=1, padding=size // 2, count_include_pad=False)[:, 0]
    drift = share.flatten(1).median(1).values  # of the colours of the whole picture, most of which is background
    weight = (share - drift[:, None, None] - _LEAST_SHARE).clamp(0, 1) * ((x >= thing.left) & (x <= thing.right))
    area = weight.sum((1, 2))
    area = torch.where(area >= _LEAST_AREA * (thing.radius * scale) ** 2, area, torch.nan)
    return Path((weight.sum(1) @ x / area).double().cpu(), (weight.sum(2) @ y / area).double().cpu())


def _smoothed(clips: Tensor) -> Tensor:
    """Averages of 4 by 4 pixels, so that sharpness and noise count little: `b f c h/2 w/2`."""
    pooled = F.avg_pool2d(clips.flatten(0, 1).movedim(-1, 1), 4, stride=2)
    return pooled.unflatten(0, clips.shape[:2])


def _chroma(pixels: Tensor) -> Tensor:
    """Colours without their brightness."""
    return pixels - pixels.mean(-1, keepdim=True)


def _sets_off(path: Path, thing: Thing, fps: float) -> bool:
    times = torch.arange(len(path.x), dtype=torch.float64) / fps
    early = times <= max(rules.CLEAR_SECONDS, 1 / fps)
    seen = early & path.x.isfinite()
    if float(seen.sum()) < max(2, _LEAST_SEEN * float(early.sum())):
        return False
    moment = times[seen] - times[seen].mean()
    x, y = (float(moment @ way[seen] / (moment @ moment)) for way in (path.x, path.y))
    if np.hypot(x, y) < _LEAST_SPEED * rules.GLIDE_SPEED:
        return False
    return bool(round(np.degrees(np.arctan2(y, x)) / 45) % 8 == thing.heading)


def _others(scene: Scene) -> Iterator[Scene]:
    """The scene with another motion of one thing, or another camera."""
    for number, thing in enumerate(scene.things):
        played = [replace(thing, motion="glide", heading=heading) for heading in range(8)]
        played += [replace(thing, motion="spin", heading=0, turn=turn) for turn in rules.TURNS]
        played += [replace(thing, motion=motion, heading=0) for motion in ("grow", "shrink", "rest")]
        for other in played:
            if (other.motion, other.heading, other.turn) != (thing.motion, thing.heading, thing.turn):
                yield replace(scene, things=(*scene.things[:number], other, *scene.things[number + 1 :]))
    yield from (replace(scene, camera=camera) for camera in rules.CAMERAS if camera != scene.camera)
