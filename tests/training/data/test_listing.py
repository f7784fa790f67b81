"""Which files there are, and what is known of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.training.data.listing import Entry, entries, look


def test_a_folder_with_all_folders_in_it(folder: Path) -> None:
    found = entries(folder)
    names = [Path(entry.path).relative_to(folder).as_posix() for entry in found]
    assert names == [
        "a.mp4",
        "b.mkv",
        "broken.mp4",
        "broken.png",
        "inner/c.mp4",
        "inner/d.mp4",
        "p.png",
        "q.jpg",
        "short.webm",
    ]
    assert [entry.caption for entry in found] == ["a red arrow", *[""] * 8]
    items, skipped = look(found)
    known = {Path(item.entry.path).name: (item.width, item.height, item.fps, item.end) for item in items}
    assert known == {
        "a.mp4": (64, 32, 8.0, 15 / 8),
        "b.mkv": (64, 32, 16.0, 31 / 16),
        "c.mp4": (32, 64, 8.0, 15 / 8),
        "d.mp4": (48, 24, 8.0, 15 / 8),
        "short.webm": (64, 32, 8.0, 3 / 8),
        "p.png": (60, 30, None, 0.0),
        "q.jpg": (20, 44, None, 0.0),
    }
    assert [Path(path).name for path, _ in skipped] == ["broken.mp4", "broken.png"]
    assert all(reason for _, reason in skipped)


def test_what_clips_a_file_holds(folder: Path) -> None:
    items, _ = look([Entry(str(folder / "a.mp4"), start=0.5, end=1.5), Entry(str(folder / "p.png"))])
    part, picture = items
    assert (part.end, part.is_video, picture.is_video) == (1.5, True, False)
    assert part.holds(9, 8)
    assert not part.holds(10, 8)
    assert part.holds(5, 4)
    assert not part.holds(5, 3)
    assert picture.holds(1, 8)
    assert not picture.holds(2, 8)
    (whole,), _ = look([Entry(str(folder / "a.mp4"), end=100.0)])
    assert whole.end == 15 / 8, "no part goes on after its file"
    ((_, reason),) = look([Entry(str(folder / "a.mp4"), start=60.0)])[1]
    assert reason == "it ends at 1.875 s, before its part begins at 60 s"


def test_lists_in_both_formats_say_the_same(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"path": "a.mp4", "caption": "an arrow, red", "start": 0.25, "end": 1.5},
        {"path": "inner/c.mp4", "caption": 'a "star"'},
        {"path": "p.png"},
    ]
    expected = [
        Entry(str(folder / "a.mp4"), "an arrow, red", 0.25, 1.5),
        Entry(str(folder / "inner/c.mp4"), 'a "star"'),
        Entry(str(folder / "p.png")),
    ]
    lines = folder / "list.jsonl"
    lines.write_text("\n\n".join(json.dumps(row) for row in rows))
    table = folder / "list.csv"
    table.write_text(
        '\ufeffpath,caption,start,end\na.mp4,"an arrow, red",0.25,1.5\ninner/c.mp4,"a ""star""",,\np.png,,,\n'
    )
    assert entries(lines) == entries(table) == expected
    lines.unlink()
    table.unlink()


WRONG = [
    (
        "x.jsonl",
        '{"path": "a.mp4"}\n{"path": "b.mp4", "capton": ""}',
        r"x.jsonl: line 2: unknown key 'capton'; did you",
    ),
    ("x.jsonl", '{"path": "a.mp4"}\n{"path"', "x.jsonl: line 2 is not JSON"),
    ("x.jsonl", '{"caption": "a"}', "x.jsonl: line 1: an object with a 'path' is expected"),
    ("x.jsonl", '["a.mp4"]', "x.jsonl: line 1: an object with a 'path'"),
    ("x.jsonl", '{"path": "a.mp4", "start": "two"}', "line 1: start: seconds of at least 0 are expected, got 'two'"),
    ("x.jsonl", '{"path": "a.mp4", "start": NaN}', "start: seconds of at least 0 are expected, got nan"),
    ("x.jsonl", '{"path": "a.mp4", "start": 3, "end": 1}', "line 1: it ends at 1 s, before it starts at 3 s"),
    ("x.jsonl", '{"path": "a.mp4", "caption": 3}', "line 1: caption: a text is expected, got 3"),
    ("x.jsonl", "", "holds no video and no picture"),
    ("x.csv", "path,caption\na.mp4,a red, arrow\n", "x.csv: line 2 has not as many fields as the first line"),
    ("x.csv", "path,caption\na.mp4\n", "x.csv: line 2 has not as many fields"),
    ("x.csv", "file\na.mp4\n", "x.csv: line 2: an object with a 'path' is expected"),
    ("x.txt", "a.mp4", "is no folder, and no list that ends in .jsonl or .csv"),
]


@pytest.mark.parametrize(("name", "text", "words"), WRONG)
def test_what_is_wrong_with_a_list_is_named_with_its_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        entries(tmp_path / name)


def test_a_list_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"path\n\xff\xfe\n")
    for name in ("x.csv", "nothing.jsonl"):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            entries(tmp_path / name)


def test_an_address_is_not_followed() -> None:
    ((_, reason),) = look([Entry("http://example.invalid/a.mp4")])[1]
    assert reason


def test_words_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "a.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"a\.txt: the caption cannot be read as UTF-8"):
        entries(tmp_path)
    table = tmp_path / "list.csv"
    table.write_text("path,caption\na.mp4,ok\na.mp4," + "x" * 140_000 + "\n")
    with pytest.raises(ConfigurationError, match=r"list\.csv: line 3 cannot be read as CSV: field larger than"):
        entries(table)
