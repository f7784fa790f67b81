"""A fault behind four conditions, which only an engine that is guided by the lines it reaches finds in good time."""

from __future__ import annotations


def read(data: bytes) -> None:
    """Raises for what begins with the right four bytes, each of which is looked at in a line of its own."""
    if data[:1] != b"\xa7":
        return
    if data[1:2] != b"p":
        return
    if data[2:3] != b"\x03":
        return
    if data[3:4] == b"!":
        raise ArithmeticError("planted")
