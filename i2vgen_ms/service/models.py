"""Models: the pipelines of one device, what requests they take, and how a request becomes a call.

Given loaded pipelines. It knows neither queue nor threads: its worker calls `make`, anybody may call `check`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2vgen_ms.errors import ArgumentError, LimitError, MediaLimitError, UnreadableMediaError, nearest
from i2vgen_ms.pipelines import Animation, Progress, Result, arguments
from i2vgen_ms.pipelines.windows import spans, windowing
from i2vgen_ms.service.job import FIRST, KINDS, SECOND, Request
from i2vgen_ms.service.limits import RequestLimits
from i2vgen_ms.service.pace import Phase

# What a request may not choose: where things go, how memory is used, arrays for files, and what has its own name.
NOT_OFFERED = (
    *("progress", "output_type", "dtype", "memory", "on_oom", "cuda_graphs", "latents", "noised_latents"),
    *("brownian_seed", "text", "seed"),
)
TEXTS = ("negative_prompt", "prompt_suffix")

Report = Callable[[str, Progress], bool]


@dataclass(frozen=True, kw_only=True)
class Models:
    """The pipelines of one worker, which nobody else uses.

    first: makes videos of pictures. second: makes clips larger and sharper. device: what to call where they are.
    also: arguments that requests may choose although they are not offered to strangers, such as `memory`.
    Raises: ArgumentError if there is neither.
    """

    first: Any = None
    second: Any = None
    device: str = "cpu"
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.first is None and self.second is None:
            raise ArgumentError("a service needs a model: of pictures (first), of clips (second), or both")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of requests that they can do."""
        have = {FIRST: self.first is not None, SECOND: self.second is not None}
        return tuple(kind for kind in KINDS if have.get(kind, all(have.values())))

    def folders(self) -> list[Path]:
        """Where the models are, which is nobody's business."""
        found = (getattr(stage, "folder", None) for stage in (self.first, self.second))
        return [Path(os.path.abspath(folder)) for folder in found if folder is not None]

    def check(self, request: Request, limits: RequestLimits) -> list[Phase]:
        """The phases of a request's work, if it can be done and stays within the limits.

        Raises: ArgumentError for a wrong argument; LimitError for one that is beyond a limit; MediaLimitError and
            UnreadableMediaError for what is too large or empty. What the bytes hold is only seen when they are read.
        """
        if request.kind not in KINDS:
            raise ArgumentError(f"kind: {request.kind!r:.80} is unknown; {nearest(str(request.kind), KINDS)}")
        if request.kind not in self.kinds:
            raise ArgumentError(f"kind: no model for {request.kind!r} is loaded here, only for {', '.join(self.kinds)}")
        _check_source(request, limits)
        _check_text("text", request.text, limits)
        phases: list[Phase] = []
        for name, task, stage in self._stages(request):
            known = (*offered(task), *self.also)
            phases += _checked(name, task, stage, getattr(request, name), request.seed, limits, known)
        for name in ("first", "second"):
            used = any(name == other for other, _, _ in self._stages(request))
            if getattr(request, name) and not used:
                raise ArgumentError(f"{name}: {request.kind!r} has no such stage")
        return phases

    def make(self, request: Request, output: Path, report: Report) -> Result:
        """Makes the video. `report` is given a task's name and every Progress, and cancels by returning False.

        Raises: whatever the pipelines raise.
        """

        def told(task: str) -> Callable[[Progress], bool]:
            return lambda event: report(task, event)

        seed: dict[str, Any] = {} if request.seed is None else {"seed": request.seed}
        one = {**request.first, "progress": told(FIRST)}
        two = {**request.second, "progress": told(SECOND)}
        result: Result
        if request.kind == FIRST:
            result = self.first(request.source, output=output, **one, **seed)
        elif request.kind == SECOND:
            result = self.second(request.source, output=output, text=request.text, **two, **seed)
        else:
            both = Animation(self.first, self.second)
            result = both(request.source, output=output, text=request.text, first=one, second=two, **seed)
        return result

    def _stages(self, request: Request) -> list[tuple[str, str, Any]]:
        stages = [("first", FIRST, self.first), ("second", SECOND, self.second)]
        return [stage for stage in stages if request.kind in (stage[1], "animate")]


def offered(task: str) -> tuple[str, ...]:
    """The arguments of a task's call that a request may give."""
    return tuple(name for name in arguments.names(task) if name not in NOT_OFFERED)


def _checked(
    name: str,
    task: str,
    stage: Any,
    given: Mapping[str, Any],
    seed: int | None,
    limits: RequestLimits,
    known: tuple[str, ...],
) -> list[Phase]:
    """The phases of one stage; `known`: the arguments that it may be given."""
    if not isinstance(given, Mapping):
        raise ArgumentError(f"{name}: the arguments of a stage are an object such as {{'steps': 20}}")
    for argument in given:
        if argument not in known:
            raise ArgumentError(f"{name}: no argument {str(argument)!r:.80}; {nearest(str(argument), known)}")
    for argument in TEXTS:
        _check_text(argument, given.get(argument), limits)
    if given.get("fit") == "keep":
        raise ArgumentError("fit='keep' is not offered here: say width and height")
    other = {} if seed is None else {"seed": seed}
    settings = stage.settings(**{**given, **windowing(given.get("window"))}, **other)
    output, diffusion = settings.output, settings.diffusion
    windowed = task == SECOND and settings.input.long_clips == "window"
    frames = seen = output.num_frames
    overlap: dict[str, tuple[float, float]] = {}
    if windowed:
        frames = limits.frames
        seen = sum(end - start for start, end in spans(frames, output.num_frames, settings.input.overlap))
        # With half a window the network sees each frame twice in a step; with more, up to a whole window of times.
        overlap["overlap"] = (settings.input.overlap, max(1, output.num_frames // 2))
    asked = {
        "steps": (diffusion.steps, limits.steps),
        "frames": (output.num_frames, limits.frames),
        "width": (output.width, limits.width),
        "height": (output.height, limits.height),
        "width x height x frames": (output.width * output.height * frames, limits.video_pixels),
        "guidance_scale": (abs(diffusion.guidance.options.get("scale", 0)), limits.guidance_scale),
        "batch_size": (given.get("batch_size") or 1, limits.batch_size),
        **overlap,
    }
    for knob, (value, most) in asked.items():
        if value > most:
            raise LimitError(f"{name}: {knob} is {value:g}, and this server does at most {most:g}; ask for less")
    pixels = output.width * output.height
    return [(f"{task} sampling", diffusion.steps * pixels * seen), (f"{task} decoding", pixels * frames)]


def _check_source(request: Request, limits: RequestLimits) -> None:
    source = request.source
    if not isinstance(source, bytes | bytearray | memoryview):
        return
    what, most = ("video", limits.video_bytes) if request.kind == SECOND else ("picture", limits.picture_bytes)
    if not len(source):
        raise UnreadableMediaError(f"the {what} is empty")
    if len(source) > most:
        raise MediaLimitError(f"the {what} has {len(source)} bytes; at most {most} are taken")


def _check_text(name: str, text: Any, limits: RequestLimits) -> None:
    if text is None:
        return
    if not isinstance(text, str):
        raise ArgumentError(f"{name} must be a string, not {text!r:.80}")
    if len(text) > limits.text:
        raise LimitError(f"{name} has {len(text)} characters; at most {limits.text} are taken")
