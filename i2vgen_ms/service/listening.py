"""Listening: the socket of a server, and which names and addresses are this machine's own.

It does not know what is served.
"""

from __future__ import annotations

import socket

from i2vgen_ms.errors import ArgumentError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def bind(host: str, port: int) -> socket.socket:
    """A bound socket, which nobody can connect to before it listens; port 0 takes a free one. Raises: ArgumentError."""
    if not 0 <= port <= 65535:  # the resolver would take what is left of it
        raise ArgumentError(f"cannot listen on {host}, port {port}: a port is 0 to 65535")
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind)
    except OSError as error:
        raise ArgumentError(f"cannot listen on {host}, port {port}: {error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ArgumentError(f"cannot listen on {host}, port {port}: {error}") from error
    return bound
