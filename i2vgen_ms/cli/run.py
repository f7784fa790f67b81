"""`i2vgen-ms run SCRIPT ARGS...`: an unchanged script with the ModelScope plugin active."""

from __future__ import annotations

import argparse
import traceback
from pathlib import Path

from i2vgen_ms.errors import ArgumentError, I2VGenError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The script and everything behind it, which is the script's own."""
    parser.add_argument("script", metavar="SCRIPT", help="the Python file to run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGS", help="handed to the script as they are")


def run(options: argparse.Namespace) -> int:
    """Runs the script as `python SCRIPT ARGS...` would; its exit status is ours."""
    from i2vgen_ms.activation import run_script

    if not Path(options.script).is_file():
        raise ArgumentError(f"no script at {options.script!r}; give the path of a Python file")
    try:
        run_script(options.script, options.arguments)
    except I2VGenError:  # the script's own: with its traceback, as Python would show it
        traceback.print_exc()
        return 1
    return 0
