"""PNG folder: one PNG file a frame, and the folder as a target that is replaced as a whole."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import BinaryIO, ClassVar

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from i2vgen_ms.errors import ConfigurationError, OutputError
from i2vgen_ms.media.writers.part import Frame, Picture, Sink
from i2vgen_ms.media.writers.target import Neighbour, claimed, refusal, remove_abandoned, sync_folder

_NAME = re.compile(r"frame_\d{6,}\.png")
_SIGN = b"Software\0i2vgen_ms"
_HEAD = 512  # the sign is among the first bytes of a file of ours


class PngFolder:
    """`frame_000001.png`, `frame_000002.png`, ..., lossless; `compress` 0 (fast) to 9 (small).

    Metadata, and the frame rate as `fps`, stand in the text chunks of every file.
    """

    suffixes: ClassVar[tuple[str, ...]] = ("",)

    def __init__(self, *, compress: int = 6) -> None:
        if not 0 <= compress <= 9:
            raise ConfigurationError(f"writer png-folder: compress is 0 (fast) to 9 (small), not {compress}")
        self.compress = compress

    def begin(self, place: BinaryIO | Path, what: Picture) -> Sink:
        """A sink into the empty folder `place`."""
        assert isinstance(place, Path)
        return _PngSink(place, what, self.compress)


class _PngSink:
    def __init__(self, folder: Path, what: Picture, compress: int) -> None:
        self._folder, self._compress, self._count = folder, compress, 0
        self._text = PngInfo()
        self._text.add_text("Software", "i2vgen_ms")
        for key, value in {**what.metadata, "fps": str(what.fps)}.items():
            self._text.add_itxt({"comment": "Comment"}.get(key, key), value)

    def write(self, frame: Frame) -> None:
        self._count += 1
        with open(self._folder / f"frame_{self._count:06d}.png", "xb") as file:
            Image.fromarray(frame).save(file, format="PNG", compress_level=self._compress, pnginfo=self._text)
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Every file is complete already."""

    def abort(self) -> None:
        """The folder is removed by its owner."""


def is_ours(path: Path) -> bool:
    """Whether a file is a frame that this writer wrote: by its name and by the sign in it."""
    if not _NAME.fullmatch(path.name) or path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        return _SIGN in file.read(_HEAD)


class FolderTarget(Neighbour):
    """A folder of frames. One that holds anything but frames of ours is never touched."""

    def __init__(self, name: str | os.PathLike[str]) -> None:
        super().__init__(name)
        self._lock: int | None = None

    def probe(self) -> None:
        """Raises OutputError for a missing parent, a file of this name, or a folder with other files in it."""
        self._check()
        self.open()
        self.discard()

    def _check(self) -> None:
        self.check_parent()
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise OutputError(
                f"{str(self.given)!r} is a file; end the name with .mp4, .mkv, .webm, .gif or .webp for a file"
            )
        try:
            foreign = next((entry.name for entry in self.path.iterdir() if not is_ours(entry)), None)
        except OSError as error:
            raise refusal(self.given, error) from error
        if foreign is not None:
            raise OutputError(
                f"{str(self.given)!r} is a folder that holds other files ({foreign!r}); frames are written to a folder "
                "of their own: name one that is empty or not there yet"
            )
        if not os.access(self.path, os.W_OK):
            raise OutputError(f"{str(self.given)!r} is there already and read-only")

    def open(self) -> Path:
        """A new, empty folder beside the target."""
        for leftover in self.leftovers():
            remove_abandoned(leftover, _remove)
        try:
            return self._create()
        except OSError as error:
            self.discard()
            raise refusal(self.given, error) from error

    def _create(self) -> Path:
        for _ in range(20):
            temporary = self.fresh()
            temporary.mkdir()
            self.temporary = temporary
            if not hasattr(os, "O_DIRECTORY"):
                return temporary  # folders cannot be opened here, so they cannot be locked either
            self._lock = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
            if claimed(self._lock, temporary):
                return temporary
            self.discard()
        raise OSError(errno.EBUSY, "other processes remove what is written there")

    def commit(self) -> None:
        """Moves the folder into place; frames of ours that stood there go only after that."""
        if self.temporary is None:
            raise OutputError(f"{str(self.given)!r}: nothing was opened")
        old: Path | None = None
        try:
            self._check()
            sync_folder(self.temporary)
            if self.path.exists():
                old = self.temporary.with_suffix(".old")
                os.rename(self.path, old)
            os.rename(self.temporary, self.path)
        except OSError as error:
            if old is not None and old.exists() and not self.path.exists():
                os.rename(old, self.path)
            self.discard()
            raise error if isinstance(error, OutputError) else refusal(self.given, error) from error
        self.temporary = None
        self._unlock()
        if old is not None:
            _remove(old)
        sync_folder(self.path.parent)

    def discard(self) -> None:
        """Removes the temporary folder."""
        temporary, self.temporary = self.temporary, None
        self._unlock()
        if temporary is not None:
            _remove(temporary)

    def _unlock(self) -> None:
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)


def _remove(folder: Path) -> None:
    """Removes frames of ours and then the folder; anything that somebody else put there stays, and the folder."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if _NAME.fullmatch(entry.name):
                entry.unlink(missing_ok=True)
        folder.rmdir()
