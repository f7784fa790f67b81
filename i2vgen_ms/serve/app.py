"""The application: the routes of the HTTP API over a Service.

Given the service. Every route answers at once; nothing here computes.
"""

from __future__ import annotations

import os
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from i2vgen_ms import __version__
from i2vgen_ms.errors import GoneError, I2VGenError
from i2vgen_ms.serve import description, problems
from i2vgen_ms.serve.body import request_of
from i2vgen_ms.serve.gate import Gate
from i2vgen_ms.serve.metrics import Metrics
from i2vgen_ms.serve.schema import BODY, Health, JobStatus, Problem, WorkerState, status_of
from i2vgen_ms.serve.settings import HttpSettings, body_bytes
from i2vgen_ms.service import Service

_WORDS = """Videos from pictures, and larger, sharper videos from clips.

Send a job, ask for its status until its state is `done`, fetch the result. Every error is
`{"error": {"type": ..., "message": ...}}`.
"""


def build(service: Service, settings: HttpSettings | None = None) -> FastAPI:
    """The application of a service, whose listener it becomes; it does not end the service."""
    settings = settings or HttpSettings()
    app = FastAPI(
        title="i2vgen_ms",
        version=__version__,
        description=_WORDS,
        docs_url=None,  # FastAPI's own loads scripts from another host
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    metrics = Metrics(service.stats)
    service.listener = metrics.listen
    _add_jobs(app, service)
    _add_watching(app, service, metrics)
    app.add_exception_handler(I2VGenError, _told)
    app.add_exception_handler(problems.Problem, _told)
    app.add_exception_handler(HTTPException, _frameworks)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _told)
    limit = body_bytes(service.settings.limits.input_bytes)
    app.add_middleware(Gate, settings=settings, limit=limit, refuse=service.refuse)
    return app


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


def _add_jobs(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/jobs",
        status_code=202,
        response_model=JobStatus,
        responses=_problems(400, 401, 408, 413, 415, 503),
        openapi_extra={"requestBody": BODY},
        tags=["jobs"],
    )
    async def submit(request: Request, response: Response) -> JobStatus:
        """Queue a job. 503 with Retry-After, at once, when the queue is full."""
        asked = await request_of(request)
        status = await to_thread.run_sync(service.submit, asked)
        response.headers["Location"] = f"/v1/jobs/{status.id}"
        return status_of(status)

    @app.get("/v1/jobs/{id}", response_model=JobStatus, responses=_problems(401, 404), tags=["jobs"])
    async def job(id: str, preview: bool = False) -> JobStatus:
        """How a job stands; with `?preview=true` its latest preview too."""
        status = service.status(id)
        if not preview:
            return status_of(status)
        return await to_thread.run_sync(lambda: status_of(status, preview=True))

    @app.get(
        "/v1/jobs/{id}/result",
        response_class=FileResponse,
        responses={200: {"content": {"video/mp4": {}}}, **_problems(401, 404, 409, 410)},
        tags=["jobs"],
    )
    async def result(id: str) -> FileResponse:
        """The video. 409 while there is none yet, 410 if there never will be, or it was removed."""
        path = service.result(id)
        try:
            found = os.stat(path)  # FileResponse, looking later, would fail for a file that was removed meanwhile
        except OSError:
            raise GoneError("the job is done: its result was removed just now") from None
        name = f"{id}.mp4"
        return FileResponse(
            path, media_type="video/mp4", filename=name, stat_result=found, content_disposition_type="inline"
        )

    @app.delete(
        "/v1/jobs/{id}", status_code=202, response_model=JobStatus, responses=_problems(401, 404), tags=["jobs"]
    )
    async def cancel(id: str) -> JobStatus:
        """Cancel a job, at the next step if it runs; of a finished one the video is removed."""
        return status_of(service.cancel(id))


def _add_watching(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/health", response_model=Health, responses={503: {"model": Health}}, tags=["watching"])
    async def health(response: Response) -> Health:
        """200 if a job that comes now will be done in its turn (or refused for a full queue), else 503."""
        stats = service.stats()
        response.status_code = 200 if stats.healthy else 503
        return Health(
            status="ok" if stats.healthy else "ending" if stats.ending else "failing",
            version=__version__,
            kinds=list(service.kinds),  # type: ignore[arg-type]
            queued=stats.queued,
            room=stats.room,
            workers=[WorkerState(device=device, state=state) for device, state in stats.workers],  # type: ignore[arg-type]
        )

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}, tags=["watching"])
    async def read_metrics() -> Response:
        """Prometheus's text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return description.response(app.openapi())


async def _told(_: Request, error: Exception) -> Response:
    return problems.response(error)


async def _frameworks(_: Request, error: Any) -> Response:
    return problems.of_status(error.status_code, str(error.detail), error.headers)


async def _invalid(_: Request, error: Any) -> Response:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return problems.of_status(400, f"{where}: {first['msg']}")


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it
