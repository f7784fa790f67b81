"""Served: calls that come through `modelscope server`, which hands on whatever a stranger's JSON says.

There nothing on this machine, and no address that it can reach, may be named. It knows the server by the module that
only its start imports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from i2vgen_ms.errors import ArgumentError

SERVER = "modelscope.server.core.event_handlers"
FILES = ("output_video", "keep_first")


def check_served(source: Any, call: Mapping[str, Any]) -> None:
    """Raises ArgumentError for a name of a file or an address in a call that a served pipeline gets."""
    if SERVER not in sys.modules:
        return
    for name in FILES:
        if call.get(name) is not None:
            raise ArgumentError(f"{name} names a file, which is not taken over HTTP; the answer holds the video")
    for one in source if isinstance(source, list | tuple) else [source]:
        what = one.get("video_path") if isinstance(one, Mapping) else one
        if isinstance(what, str | os.PathLike):
            raise ArgumentError("names of files and addresses are not taken over HTTP; send base64 in an object")
