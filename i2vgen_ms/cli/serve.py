"""`i2vgen-ms serve`: the HTTP service for programs, on this machine alone unless told otherwise."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from i2vgen_ms import demo
from i2vgen_ms.cli import image_to_video, video_to_video
from i2vgen_ms.cli import options as shared
from i2vgen_ms.errors import ArgumentError, I2VGenError, nearest

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}
SHORTEST_TOKEN = 16
SETTINGS = ("queue", "wait_seconds", "keep_seconds", "keep_results", "folder")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The models, where to listen, who may ask, and how much."""
    for stage, model in (("first", image_to_video.MODEL), ("second", video_to_video.MODEL)):
        parser.add_argument(
            f"--{stage}",
            metavar="FOLDER|ID",
            help=f"the {stage} stage's model, such as {model}; without any of the two, both bundled small ones",
        )
        parser.add_argument(f"--{stage}-revision", metavar="NAME", help="its revision on the hub")
    shared.loading(parser, several=True)
    parser.add_argument("--second-lora", metavar="FILE|FOLDER", help="for the second stage; --lora is for the first")
    where = parser.add_argument_group("where, and for whom")
    where.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1: this machine alone)")
    where.add_argument("--port", type=int, default=8000, help="0 takes a free one (8000)")
    where.add_argument("--token-file", metavar="FILE", help="what requests must carry as 'Authorization: Bearer ...'")
    where.add_argument(
        "--host-name",
        action="append",
        metavar="NAME",
        help="a name that the server is asked under; may be repeated; at 127.0.0.1 only local names without it",
    )
    much = parser.add_argument_group("how much", "see docs/service.md for all limits")
    much.add_argument("--queue", type=int, metavar="N", help="jobs that may wait (8); more are refused at once")
    much.add_argument("--wait-seconds", type=float, metavar="S", help="how long a job may wait (900)")
    much.add_argument("--keep-seconds", type=float, metavar="S", help="how long results are kept (3600)")
    much.add_argument("--keep-results", type=int, metavar="N", help="how many results are kept (64)")
    much.add_argument("--folder", metavar="DIR", help="where they are kept (in the cache folder)")
    much.add_argument("--grace", type=float, default=30.0, metavar="S", help="a running job's time to end (30)")
    much.add_argument(
        "--limit",
        action="append",
        default=[],
        type=_limit,
        metavar="NAME=N",
        help="another limit of a request: steps=50, frames=32, width=1280, ...; may be repeated",
    )


def run(options: argparse.Namespace) -> int:
    """Serves until it is told to end; prints where, once the models are loaded."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise I2VGenError(f"the service needs {', '.join(missing)}: pip install 'i2vgen_ms[serve]'")
    from i2vgen_ms.serve import server
    from i2vgen_ms.serve.settings import LOOPBACK, HttpSettings
    from i2vgen_ms.service import Service

    token = None if options.token_file is None else _token(options.token_file)
    local = options.host in LOOPBACK
    names = tuple(options.host_name or (LOOPBACK if local else ()))
    if not local and token is None:
        print("i2vgen-ms: anybody who reaches this address may use it; --token-file changes that", file=sys.stderr)
    settings = _settings(options)
    bound = server.bind(options.host, options.port)  # before the models, which take a while
    try:
        service = Service(_workers(options, settings.limits), settings)
    except BaseException:
        bound.close()
        raise
    bound.listen()  # who connects from now on is answered as soon as the server runs
    host, port = bound.getsockname()[:2]
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    server.run(service, bound, HttpSettings(token=token, hosts=names or None), grace=options.grace)
    return 0


def _workers(options: argparse.Namespace, limits: Any) -> list[Any]:
    """The models of each device; what is wrong with one is said now."""
    from i2vgen_ms.service import Models

    first, second = options.first, options.second
    if first is None and second is None:
        first, second = demo.FIRST, demo.SECOND
        print(
            "i2vgen-ms: serving the bundled small models, which know coloured shapes and nothing else; the published "
            f"ones: --first {image_to_video.MODEL} --second {video_to_video.MODEL} (11 GB; a GPU is advised)",
            file=sys.stderr,
        )
    workers = []
    for device in options.device.split(",") if options.device else [None]:
        other = {"device": device, "limits": limits.media()}
        one = first and shared.pipeline(options, first, options.first_revision, **other)
        lora = {"lora": options.second_lora}
        two = second and shared.pipeline(options, second, options.second_revision, **other, **lora)
        for stage, name, task in ((one, "--first", "image-to-video"), (two, "--second", "video-to-video")):
            if stage is not None and stage.configuration.task != task:
                raise ArgumentError(f"{name}: this is a model of {stage.configuration.task}, not of {task}")
        workers.append(Models(first=one, second=two, device=str((one or two).device)))
    return workers


def _settings(options: argparse.Namespace) -> Any:
    from i2vgen_ms.service import RequestLimits, ServiceSettings

    known = {field.name: field.type for field in fields(RequestLimits)}
    limits: dict[str, Any] = {}
    for name, number in options.limit:
        if name not in known:
            raise ArgumentError(f"--limit: there is no limit {name!r}; {nearest(name, known)}")
        limits[name] = int(number) if known[name] == "int" else number
    try:
        return ServiceSettings(limits=RequestLimits(**limits), **shared.given(options, SETTINGS))
    except ValueError as error:
        raise ArgumentError(str(error)) from None


def _token(name: str) -> str:
    try:
        token = Path(name).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ArgumentError(f"--token-file: {name!r} cannot be read: {error}") from None
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise ArgumentError(f"--token-file: a token has at least {SHORTEST_TOKEN} characters, and no spaces")
    return token


def _limit(words: str) -> tuple[str, float]:
    name, _, number = words.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{words!r} is not NAME=NUMBER, such as steps=50") from None
