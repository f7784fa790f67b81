"""Which files there are to train on: a folder of videos and pictures, or a list of them, each looked into once.

Given a path; gives back items in an order that does not depend on the machine, and what had to be left out, and why.
Of a video only its first frame is decoded here, of a picture only the header is read.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from i2vgen_ms.errors import ConfigurationError, MediaError, UnreadableMediaError, nearest
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.media.video import open_video

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif")
COLUMNS = ("path", "caption", "start", "end")
# The user's own files, of which parts are taken: neither their length nor a busy machine may choose among them.
LOCAL = Limits(urls="none", max_video_bytes=1 << 60, decode_seconds=math.inf)
_MAX_LINE = 1_000_000
_EXIF_ORIENTATION, _SIDEWAYS = 0x0112, range(5, 9)


@dataclass(frozen=True)
class Entry:
    """One line of the list: a file, what it shows, and the part of it that counts, in seconds."""

    path: str
    caption: str = ""
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Item:
    """An entry that can be read: its size in pixels, and for videos its frames a second and the last usable second."""

    entry: Entry
    width: int
    height: int
    fps: float | None
    end: float

    @property
    def is_video(self) -> bool:
        return self.fps is not None

    def holds(self, frames: int, fps: int) -> bool:
        """Whether so many frames at that rate can be taken from it. A picture holds one frame."""
        if self.fps is None:
            return frames == 1
        return (frames - 1) / fps <= self.end - self.entry.start + 1e-9


def entries(path: Path) -> list[Entry]:
    """The entries of a folder (with all folders in it, sorted by name), or of a .jsonl or .csv file.

    In a folder the caption of `a.mp4` is the text of `a.txt`, if there is one. Paths in a list are relative to it.
    Raises: ConfigurationError that names the line.
    """
    if path.is_dir():
        found = [_of_folder(file) for file in sorted(path.rglob("*")) if file.suffix.lower() in VIDEOS + PICTURES]
    elif path.suffix.lower() == ".jsonl":
        found = [_entry(values, path, line) for line, values in _json_lines(path)]
    elif path.suffix.lower() == ".csv":
        found = [_entry(values, path, line) for line, values in _csv_rows(path)]
    else:
        raise ConfigurationError(f"data: {path} is no folder, and no list that ends in .jsonl or .csv")
    if not found:
        raise ConfigurationError(f"data: {path} holds no video and no picture; known names end in {VIDEOS + PICTURES}")
    return found


def look(found: Sequence[Entry], threads: int = 8) -> tuple[list[Item], list[tuple[str, str]]]:
    """The entries that can be read, in their order, and (path, reason) of those that cannot."""
    items, skipped = [], []
    with ThreadPoolExecutor(threads) as pool:
        for entry, result in zip(found, pool.map(_look, found), strict=True):
            if isinstance(result, Item):
                items.append(result)
            else:
                skipped.append((entry.path, result))
    return items, skipped


def _look(entry: Entry) -> Item | str:
    try:
        if Path(entry.path).suffix.lower() in PICTURES:
            width, height = _picture_size(entry.path)
            return Item(entry, width, height, None, 0.0)
        with open_video(entry.path, limits=LOCAL, threads=1) as video:
            info = video.info
            if info.fps is None:
                return "the file does not say its frame rate"
            frames = info.frames or video.left_out(0) or 0
        length = (frames - 1) / float(info.fps)
        end = length if entry.end is None else min(length, entry.end)
        if end < entry.start:
            return f"it ends at {length:.3f} s, before its part begins at {entry.start:g} s"
        return Item(entry, info.width, info.height, float(info.fps), end)
    except MediaError as error:
        return str(error)


def _picture_size(path: str) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
            return (image.height, image.width) if turned else (image.width, image.height)
    except Exception as error:  # Pillow raises whatever its readers do
        raise UnreadableMediaError(f"{path!r} is not a picture that can be read: {error}") from error


def _of_folder(file: Path) -> Entry:
    words = file.with_suffix(".txt")
    try:
        return Entry(str(file), words.read_text(encoding="utf-8").strip() if words.is_file() else "")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"data: {words}: the caption cannot be read as UTF-8: {error}") from error


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(path):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise ConfigurationError(f"{path.name}: line {number} is not JSON: {error}") from None


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    rows = csv.DictReader(line for _, line in _lines(path))
    try:
        for row in rows:
            if None in row or None in row.values():
                raise ConfigurationError(f"{path.name}: line {rows.line_num} has not as many fields as the first line")
            yield rows.line_num, {key: value for key, value in row.items() if value != ""}
    except csv.Error as error:
        raise ConfigurationError(f"{path.name}: line {rows.line_num + 1} cannot be read as CSV: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            number = 0
            while line := file.readline(_MAX_LINE):
                number += 1
                if len(line) == _MAX_LINE:
                    raise ConfigurationError(f"{path.name}: line {number} has more than {_MAX_LINE} characters")
                yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error


def _entry(values: Any, path: Path, line: int) -> Entry:
    where = f"{path.name}: line {line}"
    if not isinstance(values, dict) or not isinstance(values.get("path"), str) or not values["path"]:
        raise ConfigurationError(f"{where}: an object with a 'path' is expected, got {values!r:.80}")
    for key in values:
        if key not in COLUMNS:
            raise ConfigurationError(f"{where}: unknown key {key!r:.40}; {nearest(str(key), COLUMNS)}")
    caption = values.get("caption") or ""
    if not isinstance(caption, str):
        raise ConfigurationError(f"{where}: caption: a text is expected, got {caption!r:.80}")
    start, end = _seconds(values, "start", where), _seconds(values, "end", where)
    if end is not None and end < (start or 0.0):
        raise ConfigurationError(f"{where}: it ends at {end:g} s, before it starts at {start:g} s")
    return Entry(str(path.parent / values["path"]), caption, start or 0.0, end)


def _seconds(values: dict[str, Any], key: str, where: str) -> float | None:
    value = values.get(key)
    if value is None:
        return None
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ConfigurationError(f"{where}: {key}: seconds of at least 0 are expected, got {value!r:.40}")
    return number
