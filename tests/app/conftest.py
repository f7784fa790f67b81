"""A desk over stages that write a true, small video."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from i2vgen_ms import demo
from i2vgen_ms.app.desk import Desk
from i2vgen_ms.app.recipe import Origin
from i2vgen_ms.app.sessions import Made
from i2vgen_ms.service import Models, Service, ServiceSettings
from tests.service.stages import FakeStage


def video(frames: int = 3) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for place in range(frames):
            picture = np.full((16, 32, 3), 60 * place, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


class VideoStage(FakeStage):
    """Writes a video of three frames."""

    def __call__(self, source: Any, *, output: Any, **given: Any) -> Any:
        result = super().__call__(source, output=output, **given)
        Path(output).write_bytes(video())
        return result


@pytest.fixture
def models() -> Models:
    return Models(first=VideoStage(), second=VideoStage("video-to-video"), also=("memory",))


@pytest.fixture
def desk_of(models: Models, tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    """`desk_of(queue=1)`: a desk over a service with these settings."""
    desks: list[Desk] = []

    def start(**settings: Any) -> Desk:
        service = Service([models], ServiceSettings(folder=tmp_path / "service", **settings))
        origins = Origin(model=demo.FIRST), Origin(model=demo.SECOND)
        desks.append(Desk(service, *origins, folder=tmp_path / "desk"))
        return desks[-1]

    yield start
    models.first.go.set()
    for desk in desks:
        desk.service.close()
        desk.close()
    left = [path.name for place in ("service", "desk") for path in (tmp_path / place).glob("*")]
    assert set(left) <= {".i2vgen-ms-service-lock"}


def finished(desk: Desk, key: str, job: str) -> Made | None:
    """What came of a job, as soon as it has ended."""
    end = time.monotonic() + 10
    while not (status := desk.service.status(job)).finished:
        assert time.monotonic() < end, status
        time.sleep(0.005)
    return desk.finish(key, status)
