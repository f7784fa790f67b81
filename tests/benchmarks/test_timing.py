"""Timing: the order in which sides run, what a row says of them, and when a result is exact."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math

import pytest
import torch

from benchmarks.timing import Gate, Row, failed, interleaved, versions

HERE = torch.device("cpu")


def test_sides_take_turns() -> None:
    order: list[str] = []
    sides = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    taken = interleaved(sides, repeat=3, device=HERE, warm=1)
    assert "".join(order) == "ab" + "abbaab"
    assert {name: len(times) for name, times in taken.items()} == {"a": 3, "b": 3}
    assert all(time >= 0 for times in taken.values() for time in times)


def test_a_ratio_is_that_of_the_medians() -> None:
    row = Row("a row", "published", [8.0, 6.0, 100.0], [2.0, 1.0, 50.0], gate=Gate(1e-3, 2e-3))
    told = json.loads(json.dumps(row.to_json()))
    assert (told["ratio"], told["theirs"]["median"], told["ours"]["median"]) == (4.0, 8.0, 2.0)
    assert (told["theirs"]["min"], told["theirs"]["max"], told["theirs"]["all"]) == (6.0, 100.0, [8.0, 6.0, 100.0])
    assert "4.00x" in str(row)
    assert "ok" in str(row)


def test_one_side_alone_has_no_ratio() -> None:
    assert Row("a row", "published", [], [1.0]).ratio is None
    assert Row("a row", "published", [1.0], [0.0]).ratio is None


@pytest.mark.parametrize(
    ("ours", "theirs", "ok"),
    [(1e-3, 1e-3, True), (1.01e-3, 1e-3, False), (9e-6, 0.0, True), (2e-5, 0.0, False), (math.nan, 1e-3, False)],
)
def test_ours_may_lose_what_the_published_path_loses(ours: float, theirs: float, ok: bool) -> None:
    row = Row("a row", "published", [1.0], [1.0], gate=Gate(ours, theirs))
    assert row.gate is not None
    assert row.gate.ok is ok
    assert failed([row, Row("no gate", "published", [1.0], [1.0])]) == ([] if ok else ["a row"])


@pytest.mark.parametrize(("ours", "ok"), [(0.0, True), (1e-12, False), (math.nan, False)])
def test_the_same_bits_may_be_asked_for(ours: float, ok: bool) -> None:
    assert Gate(ours, 0.0, rounding=0.0).ok is ok


def test_the_version_of_the_published_classes_is_told_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions(HERE)["modelscope"] == importlib.metadata.version("modelscope")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "modelscope" not in versions(HERE)
