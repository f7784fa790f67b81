"""Cautions: Python warnings that whoever runs a call can hear instead.

Given what to warn of. Python says a warning once a place and process, to whoever reads the terminal; a service must
tell each warning to the one whose job it is about. It does not know who listens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Listener = Callable[[Warning], Any]

_listener: ContextVar[Listener | None] = ContextVar("i2vgen_ms cautions", default=None)


def caution(message: str, category: type[Warning], *, stacklevel: int = 1) -> None:
    """Tells the listener of this thread, or warns where nobody listens; `stacklevel` as in `warnings.warn`."""
    listener = _listener.get()
    if listener is None:
        warnings.warn(message, category, stacklevel=stacklevel + 1)
    else:
        listener(category(message))


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """While it lasts, cautions of this thread go to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
