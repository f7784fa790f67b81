"""Gate: what of gradio's own routes is open, and how much may be sent to them.

Given an ASGI application and its cache. It knows nothing of pages but in which language a browser wants to be told.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from i2vgen_ms.app.place import Cache
from i2vgen_ms.app.words import chosen, words_of
from i2vgen_ms.media.limits import MEBIBYTE

# They write files that nothing of the page needs: a page's state at each call, and a video of the screen.
CLOSED = ("/gradio_api/deep_link", "/gradio_api/process_recording")
UPLOAD = "/gradio_api/upload"
UPLOADS = 8  # at one moment
UPLOAD_SECONDS = 120.0
CACHE_BYTES = 1024 * MEBIBYTE
EVENT_BYTES = MEBIBYTE  # of anything else that is sent


class Gate:
    """Lets through what the page needs.

    Args:
        app: what comes behind.
        cache: where uploads go.
        limit: the most bytes of one upload.
    """

    def __init__(self, app: Any, cache: Cache, limit: int) -> None:
        self._app, self._cache, self._limit = app, cache, limit
        self._uploads = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = scope["path"].rstrip("/")
        upload = scope["method"] == "POST" and path.endswith(UPLOAD)
        refused = PlainTextResponse("", 404) if path.endswith(CLOSED) else self._too_large(headers, upload)
        if refused is None and upload:
            if self._uploads >= UPLOADS or await asyncio.to_thread(lambda: self._cache.bytes) > CACHE_BYTES:
                refused = _said(headers, 503, "upload.busy")
            else:
                await self._upload(headers, scope, receive, send)
                return
        await (refused or self._app)(scope, receive, send)

    async def _upload(self, headers: Headers, scope: Any, receive: Any, send: Any) -> None:
        begun = False

        async def noted(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self._uploads += 1
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                await self._app(scope, receive, noted)
        except TimeoutError:
            if not begun:
                await _said(headers, 408, "upload.busy")(scope, receive, send)
        finally:
            self._uploads -= 1

    def _too_large(self, headers: Headers, upload: bool) -> PlainTextResponse | None:
        if "transfer-encoding" in headers:  # browsers say how much they send
            return PlainTextResponse("say the Content-Length of what you send", 411)
        length = headers.get("content-length", "")
        large = length.isascii() and length.isdigit() and int(length) > (self._limit if upload else EVENT_BYTES)
        return _said(headers, 413, "error.media_limit", "error.media_limit.help") if large else None


def _said(headers: Headers, status: int, *keys: str) -> PlainTextResponse:
    words = words_of(chosen(None, headers.get("accept-language")))
    more = {503: {"Retry-After": "10"}, 408: {"Connection": "close"}}.get(status)
    return PlainTextResponse(". ".join(words(key) for key in keys), status, more)
