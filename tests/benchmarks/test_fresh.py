"""Rows of processes of their own: how many there are, what is done before the clock starts, and how often is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import fresh
from benchmarks.bench import Bench

HERE = torch.device("cpu")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(Bench, "home", lambda self, stage: tmp_path)
    return Bench(tmp_path, "small", HERE, repeat=3)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """The sides of the processes that would have been started, and where their kernels are kept."""
    started: list[tuple[str, str | None]] = []

    def child(bench: Bench, job: str, side: str, kernels: str | None) -> dict[str, float]:
        started.append((side, kernels))
        if job == "memory":
            return {"torch": float(len(started))}
        return {"first": 100.0 + len(started), "later": 1.0}

    monkeypatch.setattr(fresh, "_child", child)
    return started


def test_each_first_call_is_measured_as_often_as_asked(bench: Bench, children: list[tuple[str, str | None]]) -> None:
    cold, cached = fresh.first_call(bench)
    assert (cold.ours, cached.ours) == ([100, 103, 106], [101, 104, 107])
    assert cold.theirs == cached.theirs == [102, 105, 108]
    assert cold.notes == {"ours, first s": 104, "ours, later s": 1}
    assert [side for side, _ in children] == ["ours", "ours", "published"] * 3
    places = [kernels for _, kernels in children]
    assert places[0::3] == places[1::3], "cached is with the kernels of cold"
    assert len(set(places)) == 6, "and every other process begins with none"


def test_compiled_and_memory_are_measured_as_often(bench: Bench, children: list[tuple[str, str | None]]) -> None:
    (row,) = fresh.first_call_compiled(bench)
    assert (row.ours, row.theirs) == ([100, 102, 104], [101, 103, 105])
    children.clear()
    fast, balanced, low = fresh.memory(bench)
    assert fast.theirs == balanced.theirs == low.theirs == [1, 2, 3]
    assert (fast.ours, balanced.ours, low.ours) == ([4, 5, 6], [7, 8, 9], [10, 11, 12])


def test_what_is_measured_is_told_before_the_next_is(bench: Bench, children: list[tuple[str, str | None]]) -> None:
    rows = fresh.memory(bench)
    next(rows)
    assert {side for side, _ in children} == {"published", "ours:fast"}


@pytest.mark.parametrize(("side", "checked"), [("ours", ["checked"]), ("published", [])])
def test_files_are_checked_before_the_clock_starts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, side: str, checked: list[str]
) -> None:
    done: list[str] = []

    def ready(bench: Bench, side: str, steps: int) -> Any:
        done.append("loaded")
        return lambda: done.append("run")

    def now(device: torch.device) -> float:
        done.append("clock")
        return float(len(done))

    monkeypatch.setattr(fresh, "load", lambda home, *, device: done.append("checked"))
    monkeypatch.setattr(fresh, "_now", now)
    monkeypatch.setattr(fresh, "ready", ready)
    assert fresh._first(bench, side).keys() == {"first", "later"}
    assert done[: done.index("clock")] == checked
    assert [one for one in done if one not in ("clock", "checked")] == ["loaded", "loaded", "run", "run"]


def test_the_peak_is_that_of_two_calls(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(fresh, "ready", lambda bench, side, steps: lambda: done.append(side))
    assert fresh._peak(bench, "ours:low").keys() == {"resident set"}
    assert done == ["ours:low"] * 2
