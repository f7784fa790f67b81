"""Gate: what is decided about a request before any of its body is read, and how its body may come in.

Given an ASGI application and the settings. It knows nothing of jobs but whether there is room for one.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from i2vgen_ms.errors import BusyError
from i2vgen_ms.serve.problems import Problem, response
from i2vgen_ms.serve.settings import HttpSettings


class Gate:
    """Lets through what is allowed to come in.

    Args:
        app: what comes behind.
        settings: see HttpSettings.
        limit: the most bytes of a body.
        refuse: raises BusyError if there is no room for a job now.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings, limit: int, refuse: Callable[[], Any]) -> None:
        self._app, self._settings, self._limit, self._refuse = app, settings, limit, refuse
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = _headers(scope)
            self._check_sender(headers, scope["path"])
            takes = scope["method"] == "POST" and scope["path"] == "/v1/jobs"
            self._check_length(headers, self._limit if takes else 0)
            if takes:
                self._refuse()
                if self._uploads >= self._settings.uploads:
                    error = BusyError("too many requests are being sent at this moment; try again in a moment")
                    error.retry_after = 1
                    raise error
        except (Problem, BusyError) as error:
            await response(error)(scope, receive, send)
            return
        if not takes:
            await self._app(scope, receive, send)
            return
        self._uploads += 1
        body = _Body(receive, self._limit, asyncio.get_running_loop().time() + self._settings.upload_seconds)
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._uploads -= 1  # not before: what has come in takes the most memory while it is decoded

    def _check_sender(self, headers: dict[str, str], path: str) -> None:
        settings, host = self._settings, headers.get("host", "")
        if settings.hosts is not None and _name(host) not in settings.hosts:
            raise Problem(421, f"this server does not answer to the name {_name(host)[:80]!r}")
        # A browser says which page a request comes from; the pages of others have no business here.
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Problem(403, "requests from the pages of other servers are not taken")
        if settings.token is not None and (path.startswith("/v1") or path == "/metrics"):
            scheme, _, token = headers.get("authorization", "").partition(" ")
            # compare_digest: as slow for a token that is nearly right as for any other
            right = hmac.compare_digest(token.strip().encode(), settings.token.encode())
            if scheme.lower() != "bearer" or not right:
                words = "send the token of this server as 'Authorization: Bearer TOKEN'"
                raise Problem(401, words, WWW_Authenticate="Bearer")

    @staticmethod
    def _check_length(headers: dict[str, str], limit: int) -> None:
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length) > limit:
            raise Problem(413, f"the body has {int(length)} bytes; at most {limit} are taken")


class _Body:
    """The body as it comes in: not more than so much, not after the end of its time."""

    def __init__(self, receive: Receive, limit: int, end: float) -> None:
        self._receive, self._left, self._limit, self._end = receive, limit, limit, end
        self._whole = False

    async def receive(self) -> Message:
        if self._whole:  # what is asked for now is whether the client is still there
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "the body came in too slowly") from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise Problem(413, f"the body has more than {self._limit} bytes, which is the most that is taken")
        self._whole = not message.get("more_body", False)
        return message


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
