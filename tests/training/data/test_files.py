"""Clips cut out of files, in batches, decoded here or by worker processes."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from i2vgen_ms.errors import ConfigurationError, I2VGenError, UnreadableMediaError
from i2vgen_ms.media.frames import to_uint8
from i2vgen_ms.training.data.batch import Spec
from i2vgen_ms.training.data.files import FileSource, open_files
from i2vgen_ms.training.data.listing import entries, look
from i2vgen_ms.training.data.stream import batches
from i2vgen_ms.training.data.world import WorldSource
from i2vgen_ms.world.render import render
from i2vgen_ms.world.scene import draw
from tests.training.data.failing import Failing

CPU = torch.device("cpu")
SIZES = [(64, 32), (32, 64)]
CLIP = Spec(frames=4, width=0, height=0, fps=8)


def source(folder: Path, **changes) -> FileSource:
    items, _ = look(entries(folder))
    return FileSource(items, **{"sizes": SIZES, "seed": 1, "workers": 0} | changes)


def names(files: FileSource, indices) -> list[str]:
    return [Path(files.items[index].entry.path).name for index in indices]


def truth(index: int, times: list[float]) -> np.ndarray:
    return to_uint8(render([draw(0, index)], width=64, height=32, times=times)[0])


@pytest.mark.parametrize(("fps", "start"), [(8, 0.0), (4, 0.25), (2, 0.875), (16, 0.5)])
def test_a_clip_has_the_frames_of_its_times(folder: Path, fps: int, start: float) -> None:
    files = source(folder)
    (index,) = (i for i, item in enumerate(files.items) if item.entry.path.endswith("b.mkv"))
    frames = 3
    made = files.pixels(index, Spec(frames, 64, 32, fps), start)
    expected = truth(1, [start + frame / fps for frame in range(frames)])
    assert made.shape == (3, 32, 64, 3)
    assert np.abs(made.astype(int) - expected).mean() < 2.0
    other = truth(1, [start + 0.25 + frame / fps for frame in range(frames)])
    assert np.abs(made.astype(int) - other).mean() > np.abs(made.astype(int) - expected).mean()


def test_batches_are_of_one_size_and_pictures_come_among_pictures_only(folder: Path) -> None:
    files = source(folder)
    videos, stills = set(), set()
    for number in range(12):
        plan = files.plan(number, 2, CLIP)
        made = files.finish(files.prepare(plan), CPU)
        assert made.pixels.shape == (2, 4, plan.spec.height, plan.spec.width, 3)
        assert (plan.spec.width, plan.spec.height) in SIZES
        assert float(made.pixels.min()) >= -1
        assert float(made.pixels.max()) <= 1
        assert torch.equal(made.first, made.pixels[:, 0])
        assert made.fps.tolist() == [8.0, 8.0]
        videos |= set(names(files, plan.indices))
        still = files.plan(number, 2, Spec(1, 0, 0, 8, still=True))
        stills |= set(names(files, still.indices))
        assert files.finish(files.prepare(still), CPU).still
    assert videos == {"a.mp4", "b.mkv", "c.mp4", "d.mp4", "short.webm"}
    assert stills == videos | {"p.png", "q.jpg"}
    long = files.plan(0, 20, Spec(8, 0, 0, 8))
    assert "short.webm" not in names(files, long.indices)
    captions = files.finish(files.prepare(files.plan(0, 8, CLIP)), CPU).captions
    assert captions.count("a red arrow") == names(files, files.plan(0, 8, CLIP).indices).count("a.mp4")


def test_cuts_are_taken_from_everywhere_and_follow_from_the_number(folder: Path) -> None:
    files, same = source(folder), source(folder)
    (index,) = (i for i, item in enumerate(files.items) if item.entry.path.endswith("a.mp4"))
    starts = {round(files._start(index, files.plan(number, 2, CLIP), 0), 6) for number in range(30)}
    assert len(starts) == 30
    assert min(starts) < 0.3
    assert max(starts) > 1.2
    assert max(starts) <= 12 / 8 + 1e-6
    plan = files.plan(5, 3, CLIP)
    assert plan == same.plan(5, 3, CLIP)
    assert torch.equal(files.prepare(plan).pixels, same.prepare(plan).pixels)
    beginning = source(folder, at_random=False)
    assert beginning._start(index, plan, 0) == 0.0


def test_worker_processes_give_the_same_batches_in_the_same_order(folder: Path) -> None:
    alone, helped = source(folder), source(folder, workers=2)
    plans = [alone.plan(number, 2, CLIP) for number in range(5)]
    expected = [batch.pixels for batch in batches(alone, plans, CPU)]
    made = [batch.pixels for batch in itertools.islice(batches(helped, iter(plans), CPU), 5)]
    assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))


def test_the_world_comes_from_worker_processes_too() -> None:
    alone, helped = (WorldSource(seed=1, split="x", workers=workers) for workers in (0, 1))
    plans = [alone.plan(number, 2, Spec(2, 32, 16, 8)) for number in range(3)]
    expected, made = (list(batches(some, plans, CPU)) for some in (alone, helped))
    assert [batch.captions for batch in made] == [batch.captions for batch in expected]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(made, expected, strict=True))


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [("raise", UnreadableMediaError, "number three is broken"), ("die", I2VGenError, r"ended \(status -9\)")],
)
def test_what_goes_wrong_in_a_worker_is_said_here_and_at_its_place(how: str, error, words: str) -> None:
    source = Failing(seed=1, split="x", workers=1)
    source.how = how
    made = batches(source, (source.plan(number, 1, Spec(1, 16, 16, 8)) for number in range(9)), CPU)
    assert [len(next(made).captions) for _ in range(3)] == [1, 1, 1]
    with pytest.raises(error, match=words):
        next(made)
    assert not children()


def test_workers_end_with_the_iteration() -> None:
    source = WorldSource(seed=1, split="x", workers=1)
    made = batches(source, (source.plan(number, 1, Spec(1, 16, 16, 8)) for number in itertools.count()), CPU)
    next(made)
    assert len(children()) == 1
    made.close()
    assert not children()


def children() -> list[int]:
    """Processes that this one started and that are alive."""
    found = []
    for file in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(FileNotFoundError):  # of a thread that ended meanwhile
            found += [int(child) for child in file.read_text().split()]
    return found


def test_a_file_that_breaks_later_is_reported_once_and_another_stands_in(folder: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mkv", "inner/d.mp4"):
        shutil.copy(folder / name, tmp_path / Path(name).name)
    files = source(tmp_path)
    (tmp_path / "b.mkv").write_bytes((tmp_path / "b.mkv").read_bytes()[:400])
    found = [files.finish(files.prepare(files.plan(number, 3, CLIP)), CPU) for number in range(2)]
    reports = [path for batch in found for path, _ in batch.skipped]
    assert reports == [str(tmp_path / "b.mkv")]
    again = FileSource(files.items, sizes=SIZES, seed=1, workers=0)
    assert torch.equal(again.prepare(again.plan(1, 3, CLIP)).pixels, files.prepare(files.plan(1, 3, CLIP)).pixels)
    for file in tmp_path.iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(UnreadableMediaError, match="3 files in a row cannot be read, the last of them"):
        FileSource(files.items, sizes=SIZES, seed=1, workers=0).prepare(files.plan(0, 1, CLIP))


def test_the_whole_list_is_gone_through_for_damaged_files_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, calls = source(folder), []
    plan, places = files.plan(0, 3, CLIP), files._places
    monkeypatch.setattr(files, "_places", lambda spec: calls.append(1) or places(spec))
    files.prepare(plan)
    assert calls == []
    files._damaged[plan.indices[0]] = "damaged"
    files.prepare(plan)
    files.prepare(plan)
    assert calls == [1]


def test_held_out_files_are_not_trained_on(folder: Path) -> None:
    given = {"sizes": SIZES, "seed": 0, "workers": 0}
    train, held_out, skipped = open_files(folder, held_out=2, **given)
    assert len(train.items) == 5
    assert len(held_out.items) == 2
    assert not {item.entry.path for item in train.items} & {item.entry.path for item in held_out.items}
    assert [Path(path).name for path, _ in skipped] == ["broken.mp4", "broken.png"]
    again = open_files(folder, held_out=2, **given)[1]
    assert again.items == held_out.items
    with pytest.raises(ConfigurationError, match=r"9 files, 2 of them unreadable .* 7 held out leave none"):
        open_files(folder, held_out=7, **given)


def test_all_parts_of_a_video_are_on_one_side(folder: Path) -> None:
    names = ("a.mp4", "inner/../b.mkv", "inner/c.mp4", "inner/d.mp4")
    rows = [{"path": name, "start": start} for start in (0.0, 0.2, 0.4) for name in names]
    rows += [{"path": "b.mkv", "start": 1.0}]
    file = folder / "parts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    try:
        for count in (1, 2, 3):
            train, held_out, _ = open_files(file, held_out=count, sizes=SIZES, seed=0, workers=0)
            ours, theirs = ({os.path.abspath(item.entry.path) for item in some.items} for some in (train, held_out))
            assert not ours & theirs
            assert (len(ours), len(theirs)) == (4 - count, count)
            assert len(train.items) + len(held_out.items) == len(rows)
    finally:
        file.unlink()


def test_clips_that_no_file_holds_are_named(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="none of the 7 files is a video of 64 frames at 8 a second"):
        source(folder).plan(0, 2, Spec(64, 0, 0, 8))
    _, held_out, _ = open_files(folder, held_out=1, sizes=SIZES, seed=0, workers=0)
    with pytest.raises(ConfigurationError, match=r"none of the 1 files held out is a video .* \(data\.held_out\)"):
        held_out.expect([CLIP, Spec(64, 0, 0, 8)])
