"""`i2vgen-ms convert SRC DST`: rewrites a model folder with safetensors, or back in the published layout."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Both folders, the dtype and the layout."""
    parser.add_argument("source", metavar="SRC", help="a model folder, in the hub's or our own layout")
    parser.add_argument("target", metavar="DST", help="the folder to write; it must not exist or be empty")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="as in the files without it")
    parser.add_argument(
        "--layout",
        choices=("safetensors", "modelscope"),
        default="safetensors",
        help="safetensors under our names, or the published files",
    )


def run(options: argparse.Namespace) -> int:
    """Writes the folder and prints its name."""
    from i2vgen_ms.weights.convert import convert

    print(convert(options.source, options.target, dtype=options.dtype, layout=options.layout))
    return 0
