"""Settings of the HTTP side: what is read of a request, for how long, and who may send it."""

from __future__ import annotations

from dataclasses import dataclass

from i2vgen_ms.media.limits import MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How requests come in.

    `token`: what every request below /v1, and for /metrics, must carry as `Authorization: Bearer ...`; None asks for
    nothing. `hosts`: the names in the `Host` header that are answered; None answers every name.
    `uploads`, `upload_seconds`: bodies that are read at once, and how long each may take.
    `header_seconds`: how long the head of a request may take.
    """

    token: str | None = None
    hosts: tuple[str, ...] | None = None
    uploads: int = 8
    upload_seconds: float = 60.0
    header_seconds: float = 10.0


def body_bytes(input_bytes: int) -> int:
    """The most bytes of a body that carries an input of so many bytes: base64 makes 4 of 3, the rest is words."""
    return input_bytes // 3 * 4 + MEBIBYTE
