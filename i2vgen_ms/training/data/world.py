"""The procedural world as a source: scenes by number, rendered on the training device.

Given what scenes are drawn from. A batch is a function of its number and of nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.training.data.batch import Batch, Plan, Spec, numbers, rates
from i2vgen_ms.world.render import render
from i2vgen_ms.world.scene import STANDARD, Scene, Variety, draw


@dataclass(frozen=True)
class Drawn:
    """The scenes of a batch, their captions, and their common numbers."""

    scenes: tuple[Scene, ...]
    captions: tuple[str, ...]
    spec: Spec


class WorldSource:
    """Clips of the procedural world, without end.

    Args:
        seed, split: choose the stream of scenes; different splits show different scenes.
        scenes: how many different ones there are; None: no end.
        shapes: that may occur; None: all but those that are held out.
        pairs, cameras: shares of scenes with two things, and with a moving camera; None: the world's own.
        workers: processes that draw scenes.
    Raises: ConfigurationError for a shape that is not there.
    """

    def __init__(
        self,
        *,
        seed: int,
        split: str,
        scenes: int | None = None,
        shapes: Sequence[str] | None = None,
        pairs: float | None = None,
        cameras: float | None = None,
        workers: int = 0,
    ) -> None:
        given: dict[str, Any] = {"shapes": shapes, "pairs": pairs, "cameras": cameras}
        chosen = {name: value for name, value in given.items() if value is not None}
        try:
            self._variety: Variety = replace(STANDARD, **chosen)
        except ArgumentError as error:
            raise ConfigurationError(f"data: {error}") from error
        self._seed, self._split, self._scenes = seed, split, scenes
        self.workers = workers

    def plan(self, number: int, count: int, spec: Spec) -> Plan:
        indices = numbers(number, count)
        return Plan(number, tuple(index % self._scenes if self._scenes else index for index in indices), spec)

    def prepare(self, plan: Plan) -> Drawn:
        aspect = plan.spec.width / plan.spec.height
        scenes = tuple(
            draw(self._seed, index, split=self._split, variety=self._variety, aspect=aspect) for index in plan.indices
        )
        return Drawn(scenes, tuple(scene.caption for scene in scenes), plan.spec)

    def finish(self, prepared: Drawn, device: torch.device) -> Batch:
        scenes, spec = prepared.scenes, prepared.spec
        with torch.no_grad():
            pixels = render(
                scenes, frames=spec.frames, width=spec.width, height=spec.height, fps=spec.fps, device=device
            )
        return Batch(
            pixels=pixels,
            first=pixels[:, 0],
            captions=prepared.captions,
            fps=rates(spec, len(scenes), device),
            still=spec.still,
        )
