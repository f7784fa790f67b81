"""`i2vgen-ms COMMAND ...`: finds the command's module, hands it the arguments, turns errors into an exit status.

A command is a module of this folder with a docstring, `arguments(parser)` and `run(options) -> int`. The modules import
what they need when they run, so that `parts`, `--help` and `--version` need no torch.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from i2vgen_ms import __version__
from i2vgen_ms.errors import ArgumentError, Cancelled, I2VGenError

COMMANDS = {
    "image-to-video": "make a video of each picture",
    "video-to-video": "make a larger, sharper video of each clip",
    "animate": "make a large video of each picture, through both stages",
    "app": "make videos on a page in the browser",
    "serve": "serve videos to programs over HTTP",
    "demo": "run the whole job on a bundled picture",
    "train": "train a network, as a settings file says",
    "evaluate": "measure how good a model's videos are",
    "run": "run a Python script with the ModelScope plugin active",
    "download": "download a model into the local cache",
    "check": "say whether a model folder will load, and why not",
    "convert": "rewrite a model folder's weights",
    "parts": "list the parts that a configuration can choose",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Exit status: 0 done, 1 failed, 2 asked for wrongly, 130 interrupted or cancelled."""
    parser = argparse.ArgumentParser(
        prog="i2vgen-ms", description="Image to video and video to video with the I2VGen-XL models."
    )
    parser.add_argument("--version", action="version", version=f"i2vgen-ms {__version__}")
    add_commands(parser)
    return execute(parser.parse_args(argv))


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Adds every command with its arguments to a parser."""
    commands = parser.add_subparsers(dest="i2vgen_command", metavar="COMMAND", required=True, title="commands")
    for name, words in COMMANDS.items():
        module(name).arguments(commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}."))


def module(command: str) -> Any:
    """The module of a command."""
    return importlib.import_module(f"i2vgen_ms.cli.{command.replace('-', '_')}")


def execute(options: argparse.Namespace) -> int:
    """Runs the command that was parsed; an error of this package becomes a line on stderr."""
    try:
        return int(module(options.i2vgen_command).run(options))
    except I2VGenError as error:
        print(f"i2vgen-ms: {error}", file=sys.stderr)
        return 130 if isinstance(error, Cancelled) else 2 if isinstance(error, ArgumentError) else 1
    except KeyboardInterrupt:
        print("i2vgen-ms: interrupted", file=sys.stderr)
        return 130
