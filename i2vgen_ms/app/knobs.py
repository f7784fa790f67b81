"""Knobs: what the page's drawer lets one change, filled from the catalogue and from the models' configuration.

Given a loaded pipeline and the limits of a request. It does not know how a knob is drawn.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from i2vgen_ms import catalogue
from i2vgen_ms.config.sections import Memory
from i2vgen_ms.service import RequestLimits

PARTS = {"sampler": "samplers", "spacing": "spacings"}
SIZE_STEP = 8  # pixels; what every published size is a multiple of
MOST_FPS = 60
WINDOW = "long_clips"


@dataclass(frozen=True, kw_only=True)
class Knob:
    """An argument of a call: where it stands, and the values that it may take.

    value: the configuration's. choices: (what to show, value) pairs; without any it is a number from `low` to `high`.
    silent: its own value is left out of calls, because the configuration has more to say than a name.
    """

    name: str
    value: Any
    choices: Sequence[tuple[str, str]] = ()
    low: float = 0
    high: float = 0
    step: float = 1
    silent: bool = False


def knobs(stage: Any, limits: RequestLimits) -> list[Knob]:
    """The knobs of a pipeline of either stage; `memory` is the last."""
    configuration = stage.configuration
    diffusion, output, first = configuration.diffusion, configuration.output, configuration.task == "image-to-video"
    found = [_part(name, getattr(diffusion, name)) for name in PARTS]
    found.append(Knob(name="steps", value=diffusion.steps, low=1, high=limits.steps))
    scale = diffusion.guidance.options.get("scale")
    if scale is not None:
        found.append(Knob(name="guidance_scale", value=scale, low=0, high=limits.guidance_scale, step=0.1))
    if first:
        found.append(Knob(name="num_frames", value=output.num_frames, low=1, high=limits.frames))
        found.append(Knob(name="fps", value=output.fps, low=1, high=MOST_FPS))
    else:
        found.append(Knob(name="strength", value=configuration.start.strength, low=0.05, high=1, step=0.05))
    for name in ("width", "height"):
        most = getattr(limits, name)
        found.append(Knob(name=name, value=getattr(output, name), low=SIZE_STEP, high=most, step=SIZE_STEP))
    modes = [(mode, mode) for mode in typing.get_args(Memory)]
    return [*found, Knob(name="memory", value=configuration.memory, choices=modes)]


def _part(name: str, spec: Any) -> Knob:
    entries = catalogue.names(PARTS[name])
    choices = [(f"{key}: {entry.about}", key) for key, entry in entries.items()]
    return Knob(name=name, value=spec.type, choices=choices, silent=bool(spec.options))


def arguments(known: Sequence[Knob], values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call for the values that the knobs stand at; whole numbers where the knob has them."""
    given = {}
    for knob in known:
        value = values.get(knob.name)
        if value is None or (knob.silent and value == knob.value):
            continue
        whole = not knob.choices and float(knob.step).is_integer() and isinstance(value, float) and value.is_integer()
        given[knob.name] = int(value) if whole else round(value, 6) if isinstance(value, float) else value
    return given


def for_clip(stage: Any, frames: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """The second stage's arguments for a clip of so many frames: in windows if it is longer than one is worked on."""
    longer = frames > stage.configuration.output.num_frames
    return {**given, WINDOW: "window"} if longer else dict(given)
