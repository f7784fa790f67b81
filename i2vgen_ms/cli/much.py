"""How much a server does: the options that both have, and the settings of a service that they stand for."""

from __future__ import annotations

import argparse
import math
from dataclasses import fields
from typing import Any

from i2vgen_ms.cli import options as shared
from i2vgen_ms.errors import ArgumentError, nearest

SETTINGS = ("queue", "wait_seconds", "keep_seconds", "keep_results", "folder")


def arguments(parser: argparse.ArgumentParser, *, one: str, several: str, grace: float) -> None:
    """The queue, how long things are kept, and every limit; `one`, `several`: what the results are called."""
    much = parser.add_argument_group("how much", "see docs/service.md for all limits")
    much.add_argument("--queue", type=int, metavar="N", help=f"{several} that may wait (8); more are refused at once")
    much.add_argument("--wait-seconds", type=float, metavar="S", help=f"how long a {one} may wait (900)")
    much.add_argument("--keep-seconds", type=float, metavar="S", help="how long results are kept (3600)")
    much.add_argument("--keep-results", type=int, metavar="N", help="how many results are kept to be fetched (64)")
    much.add_argument("--folder", metavar="DIR", help="where they are kept (in the cache folder)")
    much.add_argument(
        "--grace", type=float, default=grace, metavar="S", help=f"a running {one}'s time to end ({grace:g})"
    )
    much.add_argument(
        "--limit",
        action="append",
        default=[],
        type=_limit,
        metavar="NAME=N",
        help="another limit of a request: steps=50, frames=32, width=1280, ...; may be repeated",
    )


def settings(options: argparse.Namespace, **other: Any) -> Any:
    """ServiceSettings as the options have them; `other`: what no option says. Raises: ArgumentError."""
    from i2vgen_ms.service import RequestLimits, ServiceSettings

    known = {field.name: field.type for field in fields(RequestLimits)}
    limits: dict[str, Any] = {}
    for name, number in options.limit:
        if name not in known:
            raise ArgumentError(f"--limit: there is no limit {name!r}; {nearest(name, known)}")
        if known[name] == "int" and not number.is_integer():
            raise ArgumentError(f"--limit: {name} is a whole number, not {number:g}")
        limits[name] = int(number) if known[name] == "int" else number
    try:
        return ServiceSettings(limits=RequestLimits(**limits), **other, **shared.given(options, SETTINGS))
    except ValueError as error:
        raise ArgumentError(str(error)) from None


def _limit(words: str) -> tuple[str, float]:
    name, _, number = words.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{words!r} is not NAME=NUMBER, such as steps=50")
    return name, value
