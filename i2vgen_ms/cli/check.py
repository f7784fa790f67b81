"""`i2vgen-ms check FOLDER`: says whether a model folder will load, and why not. Reads headers, no weights."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """The folder."""
    parser.add_argument("folder", metavar="FOLDER", help="a model folder, in the hub's or our own layout")


def run(options: argparse.Namespace) -> int:
    """Prints the report; the exit status is 1 if the folder will not load."""
    from i2vgen_ms.weights.check import check

    report = check(options.folder)
    print(report)
    return 0 if report.ok else 1
