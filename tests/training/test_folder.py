"""What a kill left in a run's folder is put right before the run goes on, and nothing that counts is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from i2vgen_ms.errors import OutputError
from i2vgen_ms.training import export
from i2vgen_ms.training.folder import begin
from i2vgen_ms.training.report import DataWarning, Report
from tests.training import small


def folder(place: Path, text: str) -> Path:
    place.mkdir(parents=True)
    (place / "weights").write_text(text)
    return place


def test_a_model_that_cannot_be_replaced_stays(tmp_path, monkeypatch) -> None:
    target, rename = folder(tmp_path / "model", "old"), os.replace

    def failing(source, place) -> None:
        if str(source).endswith(".partial"):
            raise PermissionError(13, "Permission denied")
        rename(source, place)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OutputError, match="cannot be written: Permission denied"), export.replaced(target) as new:
        (new / "weights").write_text("new")
    assert (target / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("moved", [False, True])
def test_a_kill_between_the_two_renames_hides_no_model(second, tmp_path, moved: bool) -> None:
    names = {".model.ab.old": "old", ".model.cd.partial": "unfinished"} | ({"model": "new"} if moved else {})
    for name, text in names.items():
        folder(tmp_path / name, text)
    (tmp_path / ".state.safetensors.ef.partial").write_text("half")
    begin(tmp_path, small.settings("small-video-to-video", second, tmp_path), None)
    assert (tmp_path / "model" / "weights").read_text() == ("new" if moved else "old")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "settings.json"]


def test_a_log_ends_where_the_run_goes_on(second, tmp_path) -> None:
    settings = small.settings("small-video-to-video", second, tmp_path)
    lines = [json.dumps({"kind": "train", "step": step}) + "\n" for step in range(1, 5)]
    (tmp_path / "log.jsonl").write_text("".join(lines) + '{"kind": "tr')
    begin(tmp_path, settings, None)
    assert (tmp_path / "log.jsonl").read_text().endswith('"tr'), "another run's log is left alone"
    begin(tmp_path, settings, 3)
    assert (tmp_path / "log.jsonl").read_text() == "".join(lines[:3])


def test_events_behind_the_step_of_the_state_count_no_more(tmp_path) -> None:
    with Report(tmp_path / "run", tensorboard=True, bar=False) as report:
        for step in (1, 2, 3, 4):
            report.numbers("train", step, {"loss": float(step)})
    with Report(tmp_path / "run", tensorboard=True, bar=False, after=2) as report:
        report.numbers("train", 3, {"loss": 30.0})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_what_a_process_that_writes_nothing_found_is_handed_over(tmp_path) -> None:
    other, main = Report(None, tensorboard=False, bar=False), Report(tmp_path, tensorboard=False, bar=False)
    with pytest.warns(DataWarning, match="a.mp4 is left out: damaged"):
        other.skipped([("a.mp4", "damaged")])
    main.write_down(other.unwritten())
    main.write_down(other.unwritten())
    assert (tmp_path / "skipped.jsonl").read_text() == '{"path": "a.mp4", "reason": "damaged"}\n'
