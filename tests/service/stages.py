"""Stages that take as long as a test wants, and make what they are told to: everything but the networks is real."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from i2vgen_ms.cautions import caution
from i2vgen_ms.config import reader
from i2vgen_ms.config.data import configuration_folder
from i2vgen_ms.errors import Cancelled
from i2vgen_ms.pipelines import Progress, arguments
from i2vgen_ms.service import Models, Request

VIDEO = b"a video, as far as anybody here knows"
NAMES = {"image-to-video": "demo", "video-to-video": "demo-video-to-video"}


class FakeStage:
    """Does `steps` steps; before each it waits for `go`, which is set unless a test holds it, or `pause` seconds."""

    def __init__(self, task: str = "image-to-video", pause: float = 0.0) -> None:
        self.configuration: Any = reader.read(configuration_folder() / NAMES[task])
        self.folder = Path("/models/of/the/house")
        self.device = SimpleNamespace(type="cpu")
        self.pause, self.calls = pause, 0
        self.go, self.begun = threading.Event(), threading.Event()
        self.go.set()
        self.given: list[dict[str, Any]] = []
        self.error: BaseException | None = None
        self.cautions: list[Warning] = []

    def settings(self, **given: Any) -> Any:
        return arguments.applied(self.configuration, given)

    def __call__(self, source: Any, *, output: Any, progress: Any, text: Any = None, **given: Any) -> Any:
        settings = self.settings(**given)
        self.calls += 1
        self.given.append({"source": source, "text": text, **given})
        for one in self.cautions:
            caution(str(one), type(one))
        steps = settings.diffusion.steps
        for step in range(1, steps + 1):
            self.begun.set()
            if self.pause:
                threading.Event().wait(self.pause)
            assert self.go.wait(60)
            if self.error is not None:
                raise self.error
            latents = torch.full((1, 4, 3, 2, 2), step / steps)
            for event in (Progress("sampling", step, steps, latents, _decode),):
                if progress(event) is False:
                    raise Cancelled("cancelled")
        if progress(Progress("decoding", 1, 1)) is False:
            raise Cancelled("cancelled")
        Path(output).write_bytes(VIDEO)
        return SimpleNamespace(seed=settings.seed, path=str(output))


def _decode(latents: torch.Tensor, frames: int, side: int) -> np.ndarray:
    return np.full((frames, 8, 8, 3), int(latents.mean() * 255), np.uint8)


def both(pause: float = 0.0) -> Models:
    return Models(first=FakeStage(pause=pause), second=FakeStage("video-to-video", pause))


def asked(**changes: Any) -> Request:
    """A request that is all right, with some changes."""
    return Request(**{"kind": "image-to-video", "source": b"picture", "first": {"steps": 2}, **changes})
