"""`i2vgen-ms app`: the page in a browser, by default with the bundled small models and on this machine alone."""

from __future__ import annotations

import argparse
import sys

from i2vgen_ms.app import build, launch, need_gradio
from i2vgen_ms.cli import much
from i2vgen_ms.cli import options as shared


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
    much.arguments(parser, one="video", several="videos", grace=10.0)


def run(options: argparse.Namespace) -> int:
    """Serves the page until it is told to end; prints its address, once the models are loaded."""
    need_gradio()
    from i2vgen_ms.app.page import LOOKS
    from i2vgen_ms.service.listening import LOOPBACK, bind

    settings = much.settings(options, **LOOKS)
    local = options.host in LOOPBACK
    if not local:
        print("i2vgen-ms: anybody who reaches this address may use it", file=sys.stderr)
    with bind(options.host, options.port) as bound:  # before the models, which take a while
        port = bound.getsockname()[1]  # gradio takes no socket, only this
    page = build(
        options.first_model,
        options.second_model,
        first_revision=options.first_revision,
        second_revision=options.second_revision,
        second_lora=options.second_lora,
        local_files_only=options.local_files_only,
        settings=settings,
        language=options.language,
        show_folders=local,
        **{name: getattr(options, name) for name in shared.LOADING},
    )
    launch(page, options.host, port, grace=options.grace, say=lambda address: print(address, flush=True))
    return 0
