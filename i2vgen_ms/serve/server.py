"""Server: uvicorn for our application: clients that never finish their sentence are let go, and ending is graceful.

On the first SIGTERM or SIGINT no new job is taken, what runs may end within the grace time, and its result can still
be fetched; on the second everything ends at once.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from i2vgen_ms.serve.app import build
from i2vgen_ms.serve.settings import HttpSettings
from i2vgen_ms.service import Service
from i2vgen_ms.service.ending import finish

_CLOSING = 2.0


class Protocol(H11Protocol):
    """One connection. A head that does not come, and a body that is sent on after its answer, end it."""

    header_seconds = 10.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._watch()

    def _watch(self) -> None:
        """Starts the time when the connection begins to owe something, and stops it when it has given that."""
        answered = self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        owes = self.conn.their_state is h11.IDLE or (answered and self.conn.their_state is h11.SEND_BODY)
        if self._timer is not None and (not owes or self.transport.is_closing()):
            self._timer.cancel()
            self._timer = None
        elif self._timer is None and owes and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.header_seconds, self.transport.abort)


class Server(uvicorn.Server):
    """Ends gracefully.

    Args:
        grace: seconds that a running job has to end.
    """

    def __init__(self, config: uvicorn.Config, service: Service, grace: float) -> None:
        super().__init__(config)
        self._service, self._grace = service, grace
        self._ending: threading.Thread | None = None
        self._at_once = threading.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._ending is None:
            # In a thread: the signal may have come while the service's lock was held right here.
            self._ending = threading.Thread(target=self._end, name="i2vgen-ms ending", daemon=True)
            self._ending.start()
        else:
            self._at_once.set()
            self.should_exit = True

    def _end(self) -> None:
        finish(self._service, self._grace, self._at_once)
        self.should_exit = True


def run(
    service: Service,
    bound: socket.socket,
    settings: HttpSettings | None = None,
    *,
    grace: float = 30.0,
    log_level: str = "info",
) -> None:
    """Serves on a bound socket until a signal ends it, then ends the service. From the main thread.

    grace: seconds that a running job has to end.
    """
    settings = settings or HttpSettings()
    protocol = type("Protocol", (Protocol,), {"header_seconds": settings.header_seconds})
    config = uvicorn.Config(
        build(service, settings),
        http=protocol,
        ws="none",
        lifespan="off",
        log_level=log_level,
        access_log=False,  # clients ask over and over; the metrics count, and a log that nobody reads could block
        timeout_graceful_shutdown=int(_CLOSING),
        server_header=False,
    )
    try:
        Server(config, service, grace).run([bound])
    finally:
        bound.close()
        service.close()
