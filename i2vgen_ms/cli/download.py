"""`i2vgen-ms download ID`: a model from the hub into the local cache; resumes what was interrupted."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """The model's id and revision."""
    parser.add_argument("model", metavar="ID", help="owner/name, for example damo/Image-to-Video")
    parser.add_argument("--revision", metavar="NAME", help="a tag or branch; the default one without it")


def run(options: argparse.Namespace) -> int:
    """Downloads and prints the folder."""
    from i2vgen_ms import hub

    print(hub.download(options.model, options.revision))
    return 0
