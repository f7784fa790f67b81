"""`i2vgen-ms serve`: the HTTP service for programs, on this machine alone unless told otherwise."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from i2vgen_ms import demo
from i2vgen_ms.cli import image_to_video, much, video_to_video
from i2vgen_ms.cli import options as shared
from i2vgen_ms.errors import ArgumentError, I2VGenError

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}
SHORTEST_TOKEN = 16


def arguments(parser: argparse.ArgumentParser) -> None:
    """The models, where to listen, who may ask, and how much."""
    for stage, model in (("first", image_to_video.MODEL), ("second", video_to_video.MODEL)):
        parser.add_argument(
            f"--{stage}",
            f"--{stage}-model",
            dest=stage,
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
    much.arguments(parser, one="job", several="jobs", grace=30.0)


def run(options: argparse.Namespace) -> int:
    """Serves until it is told to end; prints where, once the models are loaded."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise I2VGenError(f"the service needs {', '.join(missing)}: pip install 'i2vgen_ms[serve]'")
    from i2vgen_ms.serve import server
    from i2vgen_ms.serve.settings import HttpSettings
    from i2vgen_ms.service import Service
    from i2vgen_ms.service.listening import LOOPBACK, bind

    token = None if options.token_file is None else _token(options.token_file)
    local = options.host in LOOPBACK
    names = tuple(options.host_name or (LOOPBACK if local else ()))
    if not local and token is None:
        print("i2vgen-ms: anybody who reaches this address may use it; --token-file changes that", file=sys.stderr)
    settings = much.settings(options)
    bound = bind(options.host, options.port)  # before the models, which take a while
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


def _token(name: str) -> str:
    try:
        token = Path(name).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ArgumentError(f"--token-file: {name!r} cannot be read: {error}") from None
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise ArgumentError(f"--token-file: a token has at least {SHORTEST_TOKEN} characters, and no spaces")
    return token
