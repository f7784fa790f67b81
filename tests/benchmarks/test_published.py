"""`python -m benchmarks.published --size small`: rows run, their numbers fit together, wrong weights are seen."""

from __future__ import annotations

import importlib.metadata
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import models as made
from benchmarks import oracle
from benchmarks.bench import Bench
from benchmarks.published import ROWS, main
from benchmarks.timing import Row, versions
from i2vgen_ms.pipelines import load

# Each in a process of its own, or with the large table of the text encoder's words: seconds each.
LONG = [row for row in ROWS if row not in ("stage-1-forward", "stage-1")]


def run(models: Path, file: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    common = ["--size", "small", "--device", "cpu", "--models", str(models), "--json", str(file)]
    code = main([*arguments, *common])
    return code, json.loads(file.read_text(encoding="utf-8"))


def check(told: dict[str, Any]) -> None:
    assert told["size"] == "small"
    assert told["versions"]["torch"] == torch.__version__
    for row in told["rows"]:
        medians = {side: statistics.median(row[side]["all"]) for side in ("theirs", "ours")}
        assert {side: row[side]["median"] for side in medians} == medians
        assert row["ratio"] == pytest.approx(medians["theirs"] / medians["ours"])
        assert row["gate"] is None or row["gate"]["ok"]


@pytest.mark.full
def test_rows_of_a_stage(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(models, tmp_path / "out.json", "stage-1-forward", "stage-1", "--repeat", "2", "--steps", "2")
    check(told)
    assert code == 0
    assert [row["row"] for row in told["rows"]] == [
        "stage 1, forward of batch 1",
        "stage 1, forward of batch 2",
        "stage 1, one guided step",
        "stage 1, 50 steps",
    ]
    step, whole = told["rows"][2:]
    assert len(whole["ours"]["all"]) == len(step["ours"]["all"]) == 2
    for side in ("ours", "theirs"):  # 48 steps were not run, and count as the median step
        assert all(one > 48 * least for one, least in zip(whole[side]["all"], step[side]["all"], strict=True))
    printed = capsys.readouterr().out
    assert all(row["row"] in printed for row in told["rows"])


def test_other_weights_are_not_exact(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours with other random weights than the published class: the gate is what has to notice."""
    other = made.make(tmp_path, 1, "small", torch.device("cpu"), seed=1)
    monkeypatch.setattr(Bench, "_load", lambda self, stage, given: load(other, device="cpu", **given))
    code, told = run(models, tmp_path / "out.json", "stage-1-forward", "--repeat", "1")
    assert code == 1
    assert [row["gate"]["ok"] for row in told["rows"]] == [False, False]
    assert "not exact: stage 1, forward of batch 1" in capsys.readouterr().err


@pytest.mark.full
def test_a_mode_that_changes_a_number_is_not_exact(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours in `low` has other weights: the gate is what has to notice."""
    other, original = made.make(tmp_path, 2, "small", torch.device("cpu"), seed=1), Bench._load

    def changed(self: Bench, stage: int, given: dict[str, Any]) -> Any:
        return load(other, device="cpu", **given) if given.get("memory") == "low" else original(self, stage, given)

    monkeypatch.setattr(Bench, "_load", changed)
    code, told = run(models, tmp_path / "out.json", "modes", "--repeat", "1", "--steps", "2")
    assert code == 1
    assert [row["gate"]["ok"] for row in told["rows"]] == [True, False]
    assert [row["gate"]["limit"] for row in told["rows"]] == [0, 0]
    assert "not exact: stage 2, 30 steps, low" in capsys.readouterr().err


@pytest.mark.full
def test_our_side_alone(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row that has one, without the published classes being asked for."""

    def asked(*given: Any) -> Any:
        raise AssertionError("the published classes were asked for")

    monkeypatch.setattr("benchmarks.theirs.published", asked)
    code, told = run(models, tmp_path / "out.json", "--ours", "--repeat", "1", "--steps", "2")
    assert code == 0
    rows = {row["row"]: row for row in told["rows"]}
    for row in ("stage 1, 50 steps", "stage 2, one guided step", "both stages, end to end", "encoder, two texts"):
        assert rows[row]["ours"]["median"] > 0
        assert rows[row]["theirs"] is rows[row]["ratio"] is rows[row]["gate"] is None
    assert rows["stage 2, 30 steps, low"]["gate"]["ok"]  # which is ours beside ours


def test_comparisons_are_not_of_one_side(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--ours", "stage-2", "stage-2-compiled"])
    assert "are comparisons; leave out --ours" in capsys.readouterr().err


@pytest.mark.full
@pytest.mark.parametrize("row", LONG)
def test_every_row_runs(models: Path, tmp_path: Path, row: str) -> None:
    code, told = run(models, tmp_path / "out.json", row, "--repeat", "1", "--steps", "2")
    assert code == 0
    assert told["rows"]
    if row not in ("first-call", "first-call-compiled"):  # whose differences may have any sign in a tiny network
        check(told)


def test_the_file_has_what_was_measured_before_something_went_wrong(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(bench: Bench) -> Iterator[Row]:
        yield Row("first", "published", [1.0], [0.5])
        raise KeyboardInterrupt

    monkeypatch.setitem(ROWS, "files", some)
    with pytest.raises(KeyboardInterrupt):
        run(models, tmp_path / "out.json", "files")
    assert [row["row"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]] == ["first"]


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["stage-3"])
    assert "there is no row 'stage-3'" in capsys.readouterr().err


def test_the_published_classes_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["--copy-oracle", str(tmp_path)]) == 0
    copied = {
        str(path.relative_to(tmp_path / "modelscope" / "models" / "multi_modal")) for path in multi_modal(tmp_path)
    }
    assert copied >= set(oracle.FILES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "modelscope")
    assert versions(torch.device("cpu"))["modelscope"] == importlib.metadata.version("modelscope")


def multi_modal(folder: Path) -> list[Path]:
    return list((folder / "modelscope" / "models" / "multi_modal").rglob("*.py"))


@pytest.mark.full
def test_the_copied_classes_serve_where_modelscope_is_not(models: Path, tmp_path: Path) -> None:
    oracle.copy_to(tmp_path)
    code = (
        "import sys\n"
        "from benchmarks.published import main\n"
        "code = main(sys.argv[1:])\n"
        "print(sys.modules['modelscope'].__file__)\n"
        "raise SystemExit(code)\n"
    )
    arguments = ["stage-1-forward", "encoders", "--size", "small", "--device", "cpu", "--models", str(models)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--repeat", "1", "--oracle", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "modelscope" / "__init__.py")


def test_a_folder_without_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no folder modelscope"):
        oracle.use(tmp_path)
