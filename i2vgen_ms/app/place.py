"""Place: where the page's files are, for its user alone.

Given nothing; it knows neither sessions nor videos.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from i2vgen_ms.errors import OutputError

_GRADIO = "GRADIO_TEMP_DIR"


def private_folder() -> Path:
    """A folder of this user's own in the system's temporary one, which everybody may write to.

    Raises: OutputError where somebody else has made it.
    """
    user = os.getuid() if hasattr(os, "getuid") else None  # elsewhere each user has a temporary folder
    folder = Path(tempfile.gettempdir()) / ("i2vgen-ms-app" if user is None else f"i2vgen-ms-app-{user}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if user is not None and not (stat.S_ISDIR(found.st_mode) and found.st_uid == user):
            raise OutputError(f"{str(folder)!r} is somebody else's; set TMPDIR to a folder of your own")
        folder.chmod(0o700)
    except FileExistsError:
        raise OutputError(f"{str(folder)!r} is no folder; remove it, or set TMPDIR to another one") from None
    return folder


class Cache:
    """gradio's files (what is uploaded, copies of what is shown) are in `folder` until `close`.

    gradio asks the environment for their place whenever it needs it; so at one time one page has its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._before = os.environ.get(_GRADIO)
        os.environ[_GRADIO] = str(folder)

    @property
    def bytes(self) -> int:
        """How much there is."""
        total = 0
        for place, _, files in os.walk(self.folder):
            for name in files:
                try:
                    total += os.lstat(os.path.join(place, name)).st_size
                except OSError:  # it was removed just now
                    continue
        return total

    def close(self) -> None:
        """Gives the environment back; whoever owns the folder removes it."""
        if os.environ.get(_GRADIO) != str(self.folder):
            return
        if self._before is None:
            del os.environ[_GRADIO]
        else:
            os.environ[_GRADIO] = self._before
