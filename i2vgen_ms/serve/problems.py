"""Problems: every error as one shape, `{"error": {"type": ..., "message": ...}}`, with the status that fits it."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from i2vgen_ms import errors
from i2vgen_ms.service.failure import failure_of

# Of an error of several of these classes the first counts.
STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.BusyError, 503),
    (errors.UnknownJobError, 404),
    (errors.NotDoneError, 409),
    (errors.GoneError, 410),
    (errors.MediaLimitError, 413),
    (errors.ArgumentError, 400),
    (errors.UnreadableMediaError, 400),
)
NAMES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    421: "wrong_host",
    503: "busy",
}


class Problem(Exception):
    """A request that is refused for its HTTP side."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def response(error: BaseException) -> Response:
    """What the client is told of an error."""
    if isinstance(error, Problem):
        return _response(error.status, NAMES[error.status], str(error), error.headers)
    failure = failure_of(error)
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, errors.BusyError) else {}
    return _response(status, failure.type, failure.message, headers)


def of_status(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """The response for an error that the framework raised."""
    return _response(status, NAMES.get(status, "error"), message, headers or {})


def _response(status: int, kind: str, message: str, headers: dict[str, str]) -> Response:
    content: dict[str, Any] = {"error": {"type": kind, "message": message}}
    return Response(json.dumps(content), status, headers, media_type="application/json")
