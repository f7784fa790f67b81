"""A service over stages that a test holds in its hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from i2vgen_ms.service import Models, Service, ServiceSettings, Status
from tests.service.stages import both


@pytest.fixture
def models() -> Models:
    return both()


@pytest.fixture
def serving(models: Models, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """`serving(queue=2)`: a service with these settings; whatever is held is let go in the end."""
    services: list[Service] = []
    threads = set(threading.enumerate())

    def start(*more: Models, **settings: Any) -> Service:
        services.append(Service([models, *more], ServiceSettings(**{"folder": tmp_path / "results", **settings})))
        return services[-1]

    yield start
    models.first.go.set()
    for service in services:
        service.close()
    assert set(threading.enumerate()) == threads
    assert [path.name for path in (tmp_path / "results").glob("*")] in ([], [".i2vgen-ms-service-lock"])


def until(service: Service, key: str, *states: str, seconds: float = 10.0) -> Status:
    """The status as soon as the job is in one of these states."""
    end = time.monotonic() + seconds
    while (status := service.status(key)).state not in states:
        assert time.monotonic() < end, status
        time.sleep(0.005)
    return status
