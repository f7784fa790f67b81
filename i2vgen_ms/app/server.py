"""Server: a page on a port, for this machine alone unless told otherwise, until a signal ends it.

Given a page. Nothing is fetched from other hosts, by the server or by the browser.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from i2vgen_ms.app.gate import Gate
from i2vgen_ms.app.page import Page
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.media.limits import MEBIBYTE
from i2vgen_ms.service.ending import finish
from i2vgen_ms.service.listening import LOOPBACK

THREADS = 16
# What is sent may be somewhat larger than what is taken: then it is said in the words of the page instead of gradio's.
UPLOADS = 4
# gradio's own scripts are inline and make functions of text; everything comes from the page's own host.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)


class Headers:
    """Adds what browsers are told about every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = _POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self._app(scope, receive, sent)


def options(page: Page, host: str | None = None, port: int | None = None) -> dict[str, Any]:
    """What gradio's launch is told; a host or port of None is gradio's own choice (GRADIO_SERVER_NAME, 127.0.0.1)."""
    most = UPLOADS * page.service.settings.limits.picture_bytes
    middleware = [Middleware(Headers), Middleware(Gate, cache=page.cache, limit=most + MEBIBYTE)]
    bound = host or os.environ.get("GRADIO_SERVER_NAME") or LOOPBACK[0]
    if page.show_folders is None:
        page.desk.show_folders = bound in LOOPBACK
    if bound in LOOPBACK:
        # Pages of other hosts, whose names were made to point here, are not answered.
        middleware.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK)))
    fonts = ("ui-sans-serif", "system-ui", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "sans-serif")
    return {
        "server_name": host,
        "server_port": port,
        "share": False,
        "show_error": True,
        "max_threads": THREADS,
        "max_file_size": most,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "ssr_mode": False,
        "pwa": False,
        "strict_cors": True,
        "allowed_paths": [],
        "app_kwargs": {"middleware": middleware, "docs_url": None, "redoc_url": None, "openapi_url": None},
        "theme": gr.themes.Soft(font=fonts, font_mono=("ui-monospace", "Consolas", "monospace")),
        "css_paths": Path(__file__).with_name("style.css"),
        "quiet": True,
    }


def launch(
    page: Page,
    host: str | None = None,
    port: int | None = None,
    *,
    grace: float = 10.0,
    say: Callable[[str], Any] = print,
) -> None:
    """Serves the page and tells `say` its address; from the main thread, where SIGTERM and SIGINT end it.

    grace: seconds that a running video has to end, while its page can still see it; a second signal takes them away.
    Raises: ArgumentError where the port cannot be had.
    """
    over, at_once = threading.Event(), threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        (at_once if over.is_set() else over).set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        try:
            _, address, _ = page.launch(**options(page, host, port), prevent_thread_lock=True, inbrowser=False)
        except OSError as error:
            raise ArgumentError(f"cannot listen on {host or LOOPBACK[0]}, port {port}: {error}") from None
        say(address)
        over.wait()
        finish(page.service, grace, at_once)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        page.close(verbose=False)
        page.end()
