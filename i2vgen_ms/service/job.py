"""Job: one request on its way from the queue to a file, and what can be said about it from outside.

Only its service changes it, under the service's lock; everybody else gets a `Status`, which never changes.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FIRST, SECOND = "image-to-video", "video-to-video"  # the tasks of the two stages
KINDS = (FIRST, SECOND, "animate")
STATES = ("queued", "running", "done", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for.

    kind: `image-to-video`, `video-to-video`, or `animate`, which is both.
    source: the picture or the clip: bytes, or, from within the process, anything that the pipeline takes.
    text: what the video should show; only the second stage reads it.
    seed: for all stages; None takes the configuration's. preview: whether to make previews.
    first, second: other arguments of a call, of the picture's stage and of the clip's.
    """

    kind: str
    source: Any = field(repr=False)
    text: str | None = None
    seed: int | None = None
    preview: bool = False
    first: Mapping[str, Any] = field(default_factory=dict)
    second: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preview:
    """Frames uint8 `f h w 3` of the video as it looked after step `step` of the stage `part`; `number` counts them."""

    number: int
    part: str
    step: int
    frames: npt.NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no video, or what is not as it should be with it: a word for programs, and words for people that
    tell nothing of this machine."""

    type: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A job as it was at one moment.

    waiting: jobs before it in the queue, while queued. part: the task whose stage is at work; stage: `starting`,
    `sampling` or `decoding`; step of steps: of that stage. progress: 0 to 1, of the whole job.
    waited, seconds: spent in the queue and at work. seconds_left: an estimate, None where there is none yet.
    warnings: what of the input does not reach the video, and the like.
    seed: of the video, once there is one. size: bytes of the result, None where there is no file (any more).
    """

    id: str
    kind: str
    state: str
    waiting: int | None
    part: str
    stage: str
    step: int
    steps: int
    progress: float
    waited: float
    seconds: float
    seconds_left: float | None
    seed: int | None
    size: int | None
    failure: Failure | None
    preview: Preview | None
    warnings: tuple[Failure, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more, except that the file goes away."""
        return self.state not in ("queued", "running")


@dataclass(slots=True, eq=False)
class Job:
    """The service's own book on one request; times are time.monotonic's."""

    request: Request | None  # until it is finished: what was sent may be large
    kind: str
    created: float
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    state: str = "queued"
    started: float | None = None
    ended: float | None = None
    part: str = ""
    stage: str = ""
    step: int = 0
    steps: int = 0
    progress: float = 0.0
    seconds_left: float | None = None
    cancelled: bool = False  # asked for; the state follows
    seed: int | None = None
    path: Path | None = None
    size: int | None = None
    failure: Failure | None = None
    preview: Preview | None = None
    warnings: tuple[Failure, ...] = ()

    def end(self, state: str, now: float, failure: Failure | None = None) -> None:
        """Finishes it; what nobody needs any more is let go."""
        self.state, self.ended, self.failure = state, now, failure
        self.request = self.preview = None
        self.seconds_left = None
        if state == "done":
            self.progress = 1.0

    def status(self, now: float, waiting: int | None) -> Status:
        """How it stands; `waiting`: jobs before it."""
        started = self.started
        end = now if self.ended is None else self.ended
        return Status(
            id=self.id,
            kind=self.kind,
            state=self.state,
            waiting=waiting,
            part=self.part,
            stage=self.stage,
            step=self.step,
            steps=self.steps,
            progress=self.progress,
            waited=(end if started is None else started) - self.created,
            seconds=0.0 if started is None else end - started,
            seconds_left=self.seconds_left,
            seed=self.seed,
            size=self.size,
            failure=self.failure,
            preview=self.preview,
            warnings=self.warnings,
        )
