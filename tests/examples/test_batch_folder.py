"""examples/batch_folder.py without networks: what is there stays, and what fails does not stop the rest."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from i2vgen_ms.errors import UnreadableMediaError
from tests.examples.conftest import EXAMPLES


class Animate:
    """Writes what it is told beside the output, and refuses pictures called bad."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None, Any]] = []

    def __call__(self, picture: Path, *, output: Path, text: str | None, **call: Any) -> SimpleNamespace:
        self.calls.append((picture.name, text, call))
        if picture.stem == "bad":
            raise UnreadableMediaError("damaged")
        output.write_text("a video")
        return SimpleNamespace(path=str(output))


def work_off(*given: Any, **call: Any) -> int:
    spec = importlib.util.spec_from_file_location("batch_folder", EXAMPLES / "batch_folder.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return int(module.work_off(*given, **call))


def test_it_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, videos = tmp_path / "pictures", tmp_path / "videos"
    pictures.mkdir()
    for name in ("a.png", "a.jpg", "bad.png", "z.WEBP", "notes.md"):
        (pictures / name).touch()
    (pictures / "a.txt").write_text("a boat\n", encoding="utf-8")
    first, again = Animate(), Animate()
    assert work_off(first, pictures, videos, first={"steps": 2}) == 1
    made = ["a.jpg.mp4", "a.png.mp4", "z.WEBP.mp4"]
    assert sorted(path.name for path in videos.iterdir()) == made, "no name is taken twice"
    call = {"first": {"steps": 2}}
    assert first.calls == [
        ("a.jpg", "a boat", call),
        ("a.png", "a boat", call),
        ("bad.png", None, call),
        ("z.WEBP", None, call),
    ]
    told = capsys.readouterr()
    assert told.out.split() == [str(videos / name) for name in made]
    assert told.err == f"{pictures / 'bad.png'}: damaged\n"
    (videos / "z.WEBP.mp4").unlink()
    assert work_off(again, pictures, videos) == 1
    assert [name for name, *_ in again.calls] == ["bad.png", "z.WEBP"]
