"""The application over stages that a test holds in its hand, asked without a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from i2vgen_ms.serve.app import build
from i2vgen_ms.serve.settings import HttpSettings
from i2vgen_ms.service import Models, RequestLimits, Service, ServiceSettings
from tests.service.stages import both


class Client:
    """Sends requests to an application, each in an event loop of its own."""

    def __init__(self, app: Any, service: Service) -> None:
        self.app, self.service = app, service

    def request(self, method: str, path: str, **given: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, **given)

        return asyncio.run(send())

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self.request("GET", path, **given)

    def post(self, path: str, **given: Any) -> httpx.Response:
        return self.request("POST", path, **given)

    def delete(self, path: str, **given: Any) -> httpx.Response:
        return self.request("DELETE", path, **given)


@pytest.fixture
def models() -> Models:
    return both()


@pytest.fixture
def client_of(models: Models, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """`client_of(token='...', queue=2, limits={...})`: a client of an application with these settings."""
    services: list[Service] = []

    def start(*, queue: int = 8, limits: dict[str, Any] | None = None, **http: Any) -> Client:
        settings = ServiceSettings(folder=tmp_path, queue=queue, limits=RequestLimits(**(limits or {})))
        services.append(Service([models], settings))
        return Client(build(services[-1], HttpSettings(**http)), services[-1])

    yield start
    models.first.go.set()
    for service in services:
        service.close()


@pytest.fixture
def client(client_of: Callable[..., Client]) -> Client:
    return client_of()


def until(client: Client, key: str, state: str) -> dict[str, Any]:
    """The status, as soon as the job is in that state."""
    end = time.monotonic() + 10
    while (status := client.get(f"/v1/jobs/{key}").json())["state"] != state:
        assert time.monotonic() < end, status
        time.sleep(0.005)
    return status
