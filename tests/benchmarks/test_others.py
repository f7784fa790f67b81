"""Other measurements beside somebody else's code, tiny: on the CPU, beside diffusers; and the counted numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import counts, cpu, diffusers


def test_a_guided_step_on_the_cpu(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert cpu.main(["--size", "small", "--threads", "1", "--repeat", "2", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert row["ratio"] == pytest.approx(row["theirs"]["median"] / row["ours"]["median"])
    assert row["gate"]["ok"]
    assert row["gate"]["ours"] > 0  # two implementations, not one twice


def test_without_diffusers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(SystemExit, match="pip install diffusers"):
        diffusers.main(["--size", "small", "--device", "cpu", "--models", str(models)])


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_beside_diffusers(tmp_path: Path, models: Path) -> None:
    pytest.importorskip("diffusers")
    file = tmp_path / "out.json"
    arguments = ["--size", "small", "--device", "cpu", "--repeat", "1", "--models", str(models), "--json", str(file)]
    assert diffusers.main(arguments) == 0
    told = json.loads(file.read_text(encoding="utf-8"))
    assert len(told["rows"]) == 4
    assert "diffusers" in told["versions"]


@pytest.mark.full
def test_operations_are_those_that_were_calculated() -> None:
    """Of the full-size networks: TFLOP of one forward, as reckoned layer by layer."""
    found = {one.name: one for one in counts.counts(counts.Device(1e12, 1e12, 1e30))}
    expected = {
        "stage 1, forward of batch 1": 17.19,
        "stage 2, forward of batch 1": 185.8,
        "autoencoder, encode a frame": 4.23,
        "autoencoder, decode a frame": 9.14,
    }
    assert {name: found[name].operations / 1e12 for name in expected} == pytest.approx(expected, rel=2e-3)
    # with bytes for nothing and an operation a picosecond, the floor is the operations
    assert found["stage 1, forward of batch 2"].floor == pytest.approx(2 * 17.19, rel=2e-3)
