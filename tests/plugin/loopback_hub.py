"""A small hub on the loopback interface that speaks what ModelScope's real client asks.

Given folders: `{(model id, revision): folder}`. It answers the model's card data, the list of files (with sizes and
SHA-256 sums) and the files (whole, by range, or their head), refuses names outside of a folder, and keeps a log of the
requests. Faults are switched on by attributes. It knows nothing of what the files mean.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class LoopbackHub:
    """`with LoopbackHub({('damo/Image-to-Video', 'v1.1.0'): folder}) as hub:` serves at `hub.endpoint`."""

    def __init__(self, models: dict[tuple[str, str], Path]) -> None:
        self.models = models
        self.log: list[str] = []
        self.failures = 0  # that many answers to come are HTTP 500
        self.cut_after: int | None = None  # the next large file's answer ends after that many bytes
        self.extra_files: list[dict[str, Any]] = []  # entries the list has besides the real ones
        self.wrong_sum = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                hub._answer(self, body=True)

            def do_HEAD(self) -> None:
                hub._answer(self, body=False)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that hangs up is no news

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def environment(self, cache: Path) -> dict[str, str]:
        """The variables that lead a client here, with its cache and its credentials below `cache`."""
        return {
            "MODELSCOPE_ENDPOINT": self.endpoint,
            "MODELSCOPE_DOMAIN": self.endpoint,
            "MODELSCOPE_CACHE": str(cache),
            "MODELSCOPE_HOME": str(cache / "home"),
        }

    def _answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        self.log.append(f"{request.command} {request.path}")
        if self.failures:
            self.failures -= 1
            return self._send(request, 500, b"{}", body)
        url = urlsplit(request.path)
        parts = unquote(url.path).strip("/").split("/")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if parts[:3] == ["openapi", "v1", "models"] and len(parts) == 5:
            if any(model == "/".join(parts[3:]) for model, _ in self.models):
                data = {"owner": parts[3], "name": parts[4], "id": "/".join(parts[3:])}
                return self._json(request, {"success": True, "data": data}, body)
        elif parts[:3] == ["api", "v1", "repos"]:
            return self._json(request, {}, body)
        elif parts[:3] == ["api", "v1", "models"] and len(parts) >= 6:
            folder = self.models.get(("/".join(parts[3:5]), query.get("Revision", "master")))
            if folder is not None and parts[5:] == ["repo", "files"]:
                files = [self._entry(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]
                listing = {"Code": 200, "Success": True, "Data": {"Files": files + self.extra_files}}
                return self._json(request, listing, body)
            if folder is not None and parts[5:] == ["repo"]:
                path = (folder / query.get("FilePath", "")).resolve()
                if path.is_relative_to(folder.resolve()) and path.is_file():
                    return self._file(request, path, body)
        missing = {"Code": 404, "Success": False, "Message": "not found", "success": False, "message": "not found"}
        return self._send(request, 404, json.dumps(missing).encode(), body)

    def _entry(self, folder: Path, path: Path) -> dict[str, Any]:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        digest = "0" * 64 if self.wrong_sum else digest
        name = path.relative_to(folder).as_posix()
        return {"Path": name, "Name": path.name, "Type": "blob", "Size": path.stat().st_size, "Sha256": digest}

    def _file(self, request: BaseHTTPRequestHandler, path: Path, body: bool) -> None:
        content = path.read_bytes()
        asked = request.headers.get("Range", "")
        if not asked.startswith("bytes="):
            return self._send(request, 200, content, body, cut=True)
        first, _, last = asked[6:].partition("-")
        start, stop = int(first or 0), min(int(last) + 1 if last else len(content), len(content))
        if start >= len(content):
            return self._send(request, 416, b"", body, {"Content-Range": f"bytes */{len(content)}"})
        span = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        return self._send(request, 206, content[start:stop], body, span, cut=True)

    def _json(self, request: BaseHTTPRequestHandler, value: Any, body: bool) -> None:
        self._send(request, 200, json.dumps(value).encode(), body, {"Content-Type": "application/json"})

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        content: bytes,
        body: bool,
        headers: dict[str, str] | None = None,
        cut: bool = False,
    ) -> None:
        request.send_response(status)
        for key, value in {"Accept-Ranges": "bytes", **(headers or {})}.items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if not body:
            return
        if cut and self.cut_after is not None and len(content) > self.cut_after:
            content, self.cut_after = content[: self.cut_after], None
            request.close_connection = True
        request.wfile.write(content)
