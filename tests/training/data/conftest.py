"""Videos and pictures of the procedural world, as files of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from i2vgen_ms.media.frames import to_uint8
from i2vgen_ms.media.writers import open_writer
from i2vgen_ms.world.render import render
from i2vgen_ms.world.scene import draw


def video(path: Path, index: int, *, frames: int = 16, width: int = 64, height: int = 32, fps: int = 8) -> None:
    """A clip of the world; its frames differ, so that a cut can be told from another."""
    scene = draw(0, index, aspect=width / height)
    pixels = to_uint8(render([scene], frames=frames, width=width, height=height, fps=fps)[0])
    with open_writer(path, width=width, height=height, fps=fps, options={"type": "h264", "crf": 1}) as writer:
        for frame in pixels:
            writer.write(frame)


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos, of two aspects, two rates and two lengths, two pictures, a caption, and two damaged files."""
    place = tmp_path_factory.mktemp("files")
    video(place / "a.mp4", 0)
    video(place / "b.mkv", 1, fps=16, frames=32)
    (place / "inner").mkdir()
    video(place / "inner" / "c.mp4", 2, width=32, height=64)
    video(place / "inner" / "d.mp4", 3, width=48, height=24)
    video(place / "short.webm", 4, frames=4)
    (place / "a.txt").write_text(" a red arrow \n", encoding="utf-8")
    for name, size in (("p.png", (60, 30)), ("q.jpg", (20, 44))):
        Image.new("RGB", size, (200, 30, 60)).save(place / name)
    (place / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 100)
    (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (place / "notes.md").write_text("not a clip")
    return place
