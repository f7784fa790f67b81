"""Demuxer: a video file's packets, with PyAV.

FFmpeg itself only ever sees a file object, and only the demuxers named here, so that no playlist, pattern, device or
address in a file or a name is followed. It does not know what is done with the packets.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import av

from i2vgen_ms.errors import UnreadableMediaError
from i2vgen_ms.media.limits import Limits

DEMUXERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "gif")


def open_container(file: BinaryIO, name: str, limits: Limits) -> Any:
    """PyAV's container over `file`, read from its first byte, for use with `with`; mp4, mov, mkv, webm, avi or gif.

    Raises UnreadableMediaError for anything else, and for what is empty or damaged; `name` is for its message.
    """
    file.seek(0)
    if not file.read(1):
        raise UnreadableMediaError(f"{name} is empty")
    file.seek(0)
    try:
        return av.open(
            file,
            options={
                "format_whitelist": ",".join(DEMUXERS),
                "protocol_whitelist": "file",
                "max_pixels": str(limits.max_video_pixels),
            },
        )
    except Exception as error:
        raise UnreadableMediaError(
            f"{name} is not a video, is damaged, or of a format that is not accepted (mp4, mov, mkv, webm, avi, "
            f"gif): {error}"
        ) from error
