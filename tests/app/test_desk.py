"""The desk: one session a page, its videos and their files, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from i2vgen_ms import demo
from i2vgen_ms.app import desk as desks
from i2vgen_ms.app.desk import Desk
from i2vgen_ms.app.recipe import Origin
from i2vgen_ms.errors import ArgumentError, BusyError, GoneError, MediaLimitError
from i2vgen_ms.service import Models, RequestLimits
from tests.app.conftest import finished

GIVEN = {"steps": 2, "memory": "low"}


def test_a_picture_becomes_a_video_and_that_another(desk_of: Callable[..., Desk], models: Models) -> None:
    desk = desk_of()
    picture = demo.sample().path.read_bytes()
    one = finished(desk, "page", desk.make("page", picture, "mine.png", 5, GIVEN))
    assert one is not None
    assert (one.frames, one.width, one.height, one.base) == (3, 32, 16, None)
    assert (one.recipe.sample, one.recipe.seed, one.recipe.source) == (demo.PICTURE, 5, "mine.png")
    two = finished(desk, "page", desk.refine("page", "a boat", 6, {"steps": 1}))
    assert two is not None
    assert (two.base, two.recipe.before, two.recipe.text) == (one, one.recipe, "a boat")
    assert models.first.given[0] | {"source": picture, "seed": 5, **GIVEN} == models.first.given[0]
    assert models.second.given[0] | {"source": one.path.read_bytes(), "text": "a boat"} == models.second.given[0]
    with pytest.raises(GoneError):
        desk.service.result(two.key)  # the service's copies are not kept twice
    again = finished(desk, "page", desk.refine("page", "a ship", 7, {"steps": 1}))
    assert again is not None
    assert again.base is one, "refining what was refined begins with the first stage's video again"
    assert desk.session("page").made == [one, two, again]
    assert desk.show("page", 0) is None, "nothing was listed yet"
    assert desk.listed("page") == [one, two, again]
    assert desk.show("page", 0) is one
    assert desk.show("page", 3) is None
    assert desk.session("another").made == []
    one.path.unlink()
    assert desk.show("page", 0) is None
    assert desk.listed("page") == [two, again]


def test_a_page_that_is_loaded_again_finds_its_videos_and_no_other_does(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    key = desk.open("page")
    assert len(key) >= 24
    made = finished(desk, "page", desk.make("page", b"picture", "a.png", 1, {"steps": 1}))
    assert made is not None
    desk.leave("page")
    assert desk.open("page again", key) == key
    assert desk.last("page again") is made
    assert finished(desk, "page again", desk.refine("page again", "a boat", 1, {"steps": 1})) is not None
    second = desk.open("second page", key)
    assert second == key
    assert desk.show("second page", 0) is None, "another page looks for itself"
    for stranger, kept in enumerate((None, "", "guessed", key[:-1], 7, [key], {"key": key})):
        other = desk.open(f"stranger {stranger}", kept)
        assert other not in (key, kept)
        assert desk.last(f"stranger {stranger}") is None


def test_what_is_made_while_a_page_is_loaded_again_goes_on_and_is_cancelled_when_nobody_comes(
    desk_of: Callable[..., Desk], models: Models
) -> None:
    desk = desk_of()
    key = desk.open("page")
    models.first.go.clear()
    job = desk.make("page", b"picture", "a.png", 1, {"steps": 2})
    desk.leave("page")
    desk.tidy(time.monotonic() + desks.LEFT_SECONDS - 1)
    assert desk.open("page again", key) == key
    desk.open("beside", key)
    desk.tidy(time.monotonic() + desks.LEFT_SECONDS + 1)
    assert desk.running("page again") == desk.running("beside") == job
    models.first.go.set()
    made = finished(desk, "page again", job)
    assert made is not None
    assert finished(desk, "beside", job) is made, "both pages waited for it"
    assert desk.session("beside").made == [made]
    assert desk.seat("beside").shown is made

    models.first.go.clear()
    job = desk.make("beside", b"picture", "a.png", 1, {"steps": 2})
    desk.leave("page again")
    desk.tidy(time.monotonic() + desks.LEFT_SECONDS + 1)
    assert desk.running("beside") == job, "one page still waits"
    desk.leave("beside")
    desk.known("beside").said = str
    assert desk.known("beside").said is None, "a page that has left is not opened again by what is said to it"
    desk.tidy(time.monotonic() + desks.LEFT_SECONDS + 1)
    models.first.go.set()
    desk.open("late", key)
    assert desk.running("late") is None
    assert desk.last("late") is made
    while not (status := desk.service.status(job)).finished:
        time.sleep(0.005)
    assert status.state == "cancelled"


def test_what_cannot_be_done_is_refused_in_words(desk_of: Callable[..., Desk], models: Models) -> None:
    desk = desk_of(queue=1, limits=RequestLimits(picture_bytes=10, steps=5))
    with pytest.raises(ArgumentError, match="make one from a picture first"):
        desk.refine("page", "text", 1, {})
    with pytest.raises(ArgumentError, match="steps is 6"):
        desk.make("page", b"picture", "a.png", 1, {"steps": 6})
    with pytest.raises(MediaLimitError):
        desk.make("page", b"a large picture", "a.png", 1, {})
    models.first.go.clear()
    job = desk.make("page", b"picture", "a.png", 1, {"steps": 2})
    with pytest.raises(BusyError, match="still being made"):
        desk.make("page", b"picture", "a.png", 1, {"steps": 2})
    assert models.first.begun.wait(10)
    desk.make("second page", b"picture", "a.png", 1, {"steps": 2})
    with pytest.raises(BusyError, match="queue is full"):
        desk.make("third page", b"picture", "a.png", 1, {"steps": 2})
    desk.cancel("page")
    desk.cancel("second page")
    models.first.go.set()
    assert finished(desk, "page", job) is None
    assert desk.service.status(job).state == "cancelled"


def test_a_page_that_is_open_and_waits_is_never_forgotten(desk_of: Callable[..., Desk], models: Models) -> None:
    desk = desk_of()
    key = desk.open("page")
    models.first.go.clear()
    job = desk.make("page", b"picture", "a.png", 1, {"steps": 2})
    late = time.monotonic() + 2 * desk.service.settings.keep_seconds
    desk.tidy(late)
    assert desk.running("page") == job
    desk.leave("page")
    desk.tidy(late)
    models.first.go.set()
    while not desk.service.status(job).finished:
        time.sleep(0.005)
    assert desk.service.status(job).state == "cancelled"
    desk.tidy(late + 2 * desk.service.settings.keep_seconds)
    assert desk.open("another", key) != key, "nobody had it open"


def test_who_comes_takes_no_place_of_those_that_wait_or_have_videos(
    desk_of: Callable[..., Desk], models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "SESSIONS", 3)
    desk = desk_of(queue=8)
    keys = {page: desk.open(page) for page in ("open", "closed")}
    made = {page: finished(desk, page, desk.make(page, b"picture", "a.png", 1, {"steps": 1})) for page in keys}
    desk.leave("closed")
    models.first.go.clear()
    desk.open("waits")
    waiting = [desk.make("waits", b"picture", "a.png", 1, {"steps": 1})]
    for guest in range(600):  # more than there are names of pages to be remembered
        desk.open(f"guest {guest}")
    assert [one.path.exists() for one in made.values() if one is not None] == [True, False]
    assert desk.last("open") is made["open"]
    assert desk.running("waits") == waiting[0]
    waiting += [desk.make(page, b"picture", "a.png", 1, {"steps": 1}) for page in ("open", "third")]
    for guest in range(3):
        with pytest.raises(BusyError, match="there is no room for one more"):
            desk.make(f"late {guest}", b"picture", "a.png", 1, {"steps": 1})
    models.first.go.set()
    assert finished(desk, "waits", waiting[0]) is not None
    assert desk.make("late 2", b"picture", "a.png", 1, {"steps": 1})


def test_folders_stand_in_recipes_where_they_may(desk_of: Callable[..., Desk], tmp_path: Path) -> None:
    desk = desk_of()
    desk.first = desk.second = Origin(model=str(tmp_path))
    for shown in (False, True):
        desk.show_folders = shown
        told = str(tmp_path) if shown else tmp_path.name
        one = finished(desk, "page", desk.make("page", b"picture", "a.png", 1, {"steps": 1}))
        two = finished(desk, "page", desk.refine("page", "a boat", 1, {"steps": 1}))
        assert [made.recipe.origin.model for made in (one, two) if made is not None] == [told, told]


def test_files_go_when_they_are_many_or_old(desk_of: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "KEEP", 2)
    monkeypatch.setattr(desks, "SESSIONS", 2)
    desk = desk_of()

    def make(page: str) -> Path:
        made = finished(desk, page, desk.make(page, b"picture", "a.png", 1, {"steps": 1}))
        assert made is not None
        return made.path

    base = make("page")
    for text in ("one", "two"):
        assert finished(desk, "page", desk.refine("page", text, 1, {"steps": 1})) is not None
    assert len(desk.session("page").made) == 2
    assert base.is_file(), "two videos are still compared with it"
    newest = make("page"), make("page")
    assert not base.exists()
    assert all(path.is_file() for path in newest)
    late = make("second")
    desk.session("third")
    assert not any(path.exists() for path in newest), "of those with videos the one that was touched longest ago goes"
    desk.tidy(time.monotonic())
    assert late.is_file()
    keep = desk.service.settings.keep_seconds
    monkeypatch.setattr(desks.time, "monotonic", lambda now=time.monotonic: now() + keep - 1)
    newer = make("second")
    monkeypatch.undo()
    desk.tidy(time.monotonic() + keep + 1)
    assert (late.exists(), newer.exists()) == (False, True), "each video has its own time"
    assert [made.path for made in desk.listed("second")] == [newer]
    desk.tidy(time.monotonic() + 2 * keep + 1)
    assert not newer.exists()
    assert desk.last("second") is None
