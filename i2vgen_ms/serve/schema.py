"""Schema: what goes over the wire, for the OpenAPI page and for checking what is sent out."""

from __future__ import annotations

import base64
import io
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, Field

from i2vgen_ms.service import KINDS, Status
from i2vgen_ms.service.job import Failure, Preview

KIND = Literal["image-to-video", "video-to-video", "animate"]


class Error(BaseModel):
    """Why something was not done, or what there is to know about it: a word for programs, words for people."""

    type: str
    message: str


class Problem(BaseModel):
    """The body of every response that is an error."""

    error: Error


class PreviewFrames(BaseModel):
    """How the video looked after `step` of the stage `part`: JPEG files in base64. `number` counts previews."""

    number: int
    part: str
    step: int
    frames: list[str]


class ResultFile(BaseModel):
    """Where the video is, and how large."""

    url: str
    bytes: int
    content_type: Literal["video/mp4"] = "video/mp4"


class JobStatus(BaseModel):
    """How a job stands."""

    id: str
    kind: KIND
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    waiting: int | None = Field(description="jobs before it in the queue, while it is queued")
    part: str = Field(description="the task whose stage is at work")
    stage: str = Field(description="starting, sampling or decoding")
    step: int
    steps: int
    progress: float = Field(description="0 to 1, of the whole job")
    waited: float = Field(description="seconds in the queue")
    seconds: float = Field(description="seconds at work")
    seconds_left: float | None = Field(description="an estimate, once there is one")
    seed: int | None = Field(description="of the video: the same seed and request give it again")
    warnings: list[Error] = Field(description="what of the input does not reach the video, and the like")
    error: Error | None
    result: ResultFile | None
    preview: PreviewFrames | None = Field(description="if the job makes previews and they were asked for")


class WorkerState(BaseModel):
    """One device: idle, busy, failing (its last jobs failed without a reason of their own) or dead."""

    device: str
    state: Literal["idle", "busy", "failing", "dead"]


class Health(BaseModel):
    """Whether a job that comes now will be done in its turn."""

    status: Literal["ok", "ending", "failing"]
    version: str
    kinds: list[KIND]
    queued: int
    room: int
    workers: list[WorkerState]


def status_of(status: Status, *, preview: bool = False) -> JobStatus:
    """A Status as it goes out; preview: with its frames."""
    failure = None if status.failure is None else _error(status.failure)
    result = None if status.size is None else ResultFile(url=f"/v1/jobs/{status.id}/result", bytes=status.size)
    shared: dict[str, Any] = {name: getattr(status, name) for name in JobStatus.model_fields if hasattr(status, name)}
    frames = _frames(status.preview) if preview and status.preview is not None else None
    for name in ("progress", "waited", "seconds"):
        shared[name] = round(shared[name], 3)
    left = None if status.seconds_left is None else round(status.seconds_left, 1)
    told = {"warnings": [_error(warning) for warning in status.warnings]}
    return JobStatus(**shared | told | {"error": failure, "result": result, "preview": frames, "seconds_left": left})


def _error(failure: Failure) -> Error:
    return Error(type=failure.type, message=failure.message)


def _frames(preview: Preview) -> PreviewFrames:
    encoded = []
    for frame in preview.frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=80)
        encoded.append(base64.b64encode(file.getvalue()).decode())
    return PreviewFrames(number=preview.number, part=preview.part, step=preview.step, frames=encoded)


def _stage(words: str) -> dict[str, Any]:
    return {"type": "object", "description": words, "default": {}}


_SHARED: dict[str, Any] = {
    "kind": {"type": "string", "enum": list(KINDS), "default": "image-to-video"},
    "text": {"type": "string", "description": "what the video should show; only the second stage reads it"},
    "seed": {"type": "integer", "minimum": 0},
    "preview": {"type": "boolean", "default": False, "description": "make previews while it runs"},
    "arguments": _stage("arguments of the call, for the kinds of one stage: steps, sampler, width, ..."),
    "first": _stage("arguments of the picture's stage"),
    "second": _stage("arguments of the clip's stage"),
}
BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["data"],
                "additionalProperties": False,
                "properties": {
                    "data": {"type": "string", "format": "byte", "description": "the picture or clip, in base64"},
                    **_SHARED,
                },
            }
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}, **_SHARED},
            }
        },
    },
}
