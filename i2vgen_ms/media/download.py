"""Download: one file from an http(s) address, with limits on size, time and redirects.

Given an address and limits; gives back a temporary file. It does not know what the bytes mean and follows nothing
but http and https.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter

from i2vgen_ms.errors import MediaLimitError, UnreadableMediaError
from i2vgen_ms.media import addresses
from i2vgen_ms.media.limits import MEBIBYTE, Limits, words
from i2vgen_ms.media.source import describe, is_url

_CHUNK = 1 << 16
_IN_MEMORY = 8 * MEBIBYTE


class _Deadline:
    """Shuts every connection down when the time is over.

    A time-out per read is not enough: a server that sends one byte now and then never lets one pass. Duplicated
    sockets are kept, because those of the library are hidden while TLS greetings and headers are being read.
    """

    def __init__(self, seconds: float) -> None:
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._end = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self._shut_down)
        self._timer.daemon = True
        self._timer.start()

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._end

    def watch(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.append(connection.dup())
        if self.passed:
            self._shut_down()

    def _shut_down(self) -> None:
        with self._lock:
            for connection in self._sockets:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # closed by the other side already

    def close(self) -> None:
        self._timer.cancel()
        with self._lock:
            for connection in self._sockets:
                connection.close()
            self._sockets.clear()


class _WatchedAdapter(HTTPAdapter):
    """Shows every new connection to the deadline, and makes it to a public address if that is wanted."""

    def __init__(self, deadline: _Deadline, *, public: bool) -> None:
        super().__init__(max_retries=0)
        self._deadline, self._public = deadline, public

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        deadline, base, public = self._deadline, pool.ConnectionCls, self._public

        class Watched(base):  # type: ignore[misc, valid-type]
            def _new_conn(self) -> socket.socket:
                connection = (
                    addresses.connect(self._dns_host, self.port, self.timeout) if public else super()._new_conn()
                )
                deadline.watch(connection)
                return cast(socket.socket, connection)

        pool.ConnectionCls = Watched
        return pool


@contextmanager
def download(url: str, *, limits: Limits, max_bytes: int) -> Iterator[BinaryIO]:
    """The file behind `url`, at its first byte, in memory or in a temporary file that vanishes afterwards.

    Raises UnreadableMediaError (no connection, an error status, another scheme) and MediaLimitError (more than
    `max_bytes`, longer than `limits.total_seconds`, more than `limits.redirects` redirects, an address that
    `limits.urls` refuses).
    """
    if limits.urls == "none":
        raise MediaLimitError(f"{describe(url)}: web addresses are switched off here; give the file itself")
    deadline = _Deadline(limits.total_seconds)
    try:
        with requests.Session() as session, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
            public = limits.urls == "public"
            # A proxy would resolve the name itself, and a password file is not for an address that a stranger gives.
            session.trust_env = not public
            adapter = _WatchedAdapter(deadline, public=public)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            try:
                _fetch(session, url, cast(BinaryIO, file), limits, max_bytes, deadline)
            except (requests.RequestException, OSError, ValueError) as error:
                if isinstance(error, (MediaLimitError, UnreadableMediaError)):
                    raise
                if deadline.passed:
                    raise _too_slow(url, limits) from error
                raise UnreadableMediaError(f"{describe(url)} cannot be downloaded: {_reason(error)}") from error
            file.seek(0)
            yield cast(BinaryIO, file)
    finally:
        deadline.close()


def _fetch(
    session: requests.Session, url: str, file: BinaryIO, limits: Limits, max_bytes: int, deadline: _Deadline
) -> None:
    address = url
    for _ in range(limits.redirects + 1):
        response = session.get(
            address,
            stream=True,
            allow_redirects=False,
            timeout=(limits.connect_seconds, min(limits.connect_seconds, limits.total_seconds)),
            headers={"Accept-Encoding": "identity"},  # a packed body could unfold without bound
        )
        with response:
            if response.is_redirect:
                address = urljoin(address, response.headers["location"])
                if not is_url(address):
                    raise UnreadableMediaError(
                        f"{describe(url)} redirects to {describe(address)}, which is not http(s)"
                    )
                continue
            _receive(response, url, file, limits, max_bytes, deadline)
            return
    raise MediaLimitError(f"{describe(url)} redirects more than {limits.redirects} times")


def _receive(
    response: requests.Response, url: str, file: BinaryIO, limits: Limits, max_bytes: int, deadline: _Deadline
) -> None:
    if response.status_code != 200:
        raise UnreadableMediaError(f"{describe(url)} answers {response.status_code} {response.reason}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnreadableMediaError(f"{describe(url)} sends a packed body although none was asked for")
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise MediaLimitError(f"{describe(url)} has {words(int(announced))}; at most {words(max_bytes)} are read")
    total = 0
    for piece in response.iter_content(_CHUNK):
        total += len(piece)
        if total > max_bytes:
            raise MediaLimitError(f"{describe(url)} has more than {words(max_bytes)}, which is the most that is read")
        if deadline.passed:
            raise _too_slow(url, limits)
        file.write(piece)
    if deadline.passed:
        # The connection was cut by us: without a length the library takes that for the end of the body.
        raise _too_slow(url, limits)
    if announced.isdecimal() and total != int(announced):
        raise UnreadableMediaError(f"{describe(url)} broke off after {total} of {announced} bytes")


def _too_slow(url: str, limits: Limits) -> MediaLimitError:
    return MediaLimitError(f"{describe(url)} was not there after {limits.total_seconds:g} seconds")


def _reason(error: Exception) -> str:
    """The innermost cause: the library wraps it several times, with the address in every layer."""
    inner: BaseException = error
    while inner.args and isinstance(getattr(inner, "reason", inner.args[0]), BaseException):
        inner = getattr(inner, "reason", inner.args[0])
    text = str(inner)
    return f"{type(inner).__name__}: {text}" if len(text) < 300 else type(inner).__name__
