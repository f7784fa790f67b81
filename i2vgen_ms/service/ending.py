"""Ending: what a server does between the signal to end and its end.

Given a service. It knows neither signals nor sockets.
"""

from __future__ import annotations

import threading
import time

from i2vgen_ms.service.service import Service

LINGER = 5.0  # seconds, at most, in which the last result can be fetched


def finish(service: Service, grace: float, at_once: threading.Event) -> None:
    """Takes no more jobs, and waits so long for the running one, and for clients to fetch it; not after `at_once`."""
    service.drain()
    busy, end = not service.wait(0), time.monotonic() + grace
    while not service.wait(0) and time.monotonic() < end:
        if at_once.wait(0.05):
            return
    if busy and service.wait(0):
        at_once.wait(min(LINGER, grace))
