"""`i2vgen-ms app`: the page in a browser, by default with the bundled small models and on this machine alone."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from i2vgen_ms.app import build, launch, need_gradio
from i2vgen_ms.cli import options as shared

SETTINGS = ("queue", "keep_seconds", "keep_results", "folder")
LOCAL = ("127.0.0.1", "localhost", "::1")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The models, where to listen, and how much."""
    bundled = "without any of the two, both bundled small ones"
    parser.add_argument(
        "-m",
        "--model",
        "--first-model",
        dest="first_model",
        metavar="FOLDER|ID",
        help=f"the first stage's model, such as damo/Image-to-Video; {bundled}; alone, there is no second stage",
    )
    parser.add_argument("--first-revision", metavar="NAME", help="its revision on the hub")
    parser.add_argument("--second-model", metavar="FOLDER|ID", help=f"the second stage's model; {bundled}")
    parser.add_argument("--second-revision", metavar="NAME", help="its revision on the hub")
    shared.loading(parser)
    parser.add_argument("--second-lora", metavar="FILE|FOLDER", help="for the second stage; --lora is for the first")
    where = parser.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1: this machine alone)")
    where.add_argument("--port", type=int, default=7860, help="0 takes a free one (7860)")
    where.add_argument("--language", choices=("en", "zh"), default="en", help="for browsers that ask for neither (en)")
    much = parser.add_argument_group("how much")
    much.add_argument("--queue", type=int, metavar="N", help="videos that may wait (8); more are refused at once")
    much.add_argument("--keep-seconds", type=float, metavar="S", help="how long videos are kept (3600)")
    much.add_argument("--keep-results", type=int, metavar="N", help="how many are kept until pages fetch them (64)")
    much.add_argument("--folder", metavar="DIR", help="where they are made (in the cache folder)")
    much.add_argument("--grace", type=float, default=10.0, metavar="S", help="a running video's time to end (10)")


def run(options: argparse.Namespace) -> int:
    """Serves the page until it is told to end; prints its address, once the models are loaded."""
    need_gradio()
    from i2vgen_ms.app.server import free_port

    local = options.host in LOCAL
    if not local:
        print("i2vgen-ms: anybody who reaches this address may use it", file=sys.stderr)
    port = free_port(options.host, options.port)  # before the models, which take a while
    page = build(
        options.first_model,
        options.second_model,
        first_revision=options.first_revision,
        second_revision=options.second_revision,
        second_lora=options.second_lora,
        local_files_only=options.local_files_only,
        settings=_settings(options),
        language=options.language,
        show_folders=local,
        **{name: getattr(options, name) for name in shared.LOADING},
    )
    launch(page, options.host, port, grace=options.grace, say=lambda address: print(address, flush=True))
    return 0


def _settings(options: argparse.Namespace) -> Any:
    from i2vgen_ms.app.page import LOOKS
    from i2vgen_ms.errors import ArgumentError
    from i2vgen_ms.service import ServiceSettings

    try:
        return ServiceSettings(**LOOKS, **shared.given(options, SETTINGS))
    except ValueError as error:
        raise ArgumentError(str(error)) from None
