"""`modelscope i2vgen-ms COMMAND ...`: our commands in ModelScope's own command line.

ModelScope loads this class through the entry-point group `modelscope_hub.cli_plugins` at each of its commands.
Importing this module imports `i2vgen_ms`, which activates the plugin, so that for example
`modelscope server --model_id damo/Image-to-Video` serves our pipeline.
"""

from __future__ import annotations

import argparse
from typing import Any

from i2vgen_ms.cli.main import add_commands, execute


class I2VGenCommand:
    """What ModelScope expects of a command: `name`, `register(subparsers)`, a constructor for the parsed arguments."""

    name = "i2vgen-ms"

    @staticmethod
    def register(subparsers: Any) -> None:
        """Adds the command `i2vgen-ms` with all of ours below it."""
        words = "Image to video and video to video with the I2VGen-XL models."
        parser = subparsers.add_parser(I2VGenCommand.name, help=words, description=words)
        add_commands(parser)
        parser.set_defaults(_command=I2VGenCommand)

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    def execute(self) -> None:
        """Runs the command; a failure ends the process with our exit status."""
        status = execute(self.args)
        if status:
            raise SystemExit(status)
