"""`i2vgen-ms demo`: the whole job on a bundled picture."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where the video goes."""
    parser.add_argument("-o", "--output", default="demo.mp4", metavar="FILE", help="the video file (demo.mp4)")


def run(options: argparse.Namespace) -> int:
    """Makes the video; the demo itself says what it does and where the video is."""
    from i2vgen_ms import demo

    demo.run(options.output)
    return 0
