"""Random inputs, for a short while: see `tests/hostile/fuzz`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from i2vgen_ms.errors import CorruptCheckpointError
from tests.hostile.fuzz import engine, targets

pytestmark = [pytest.mark.hostile, pytest.mark.group("fuzz")]

SECONDS = 20
ENOUGH = {"video": 100, "picture": 1000}


@pytest.mark.bounds(seconds=120, rss_mib=1500)
@pytest.mark.parametrize("name", targets.TARGETS)
def test_only_our_errors_come_out(name: str) -> None:
    # Another seed in every run of the day, the same one in a run that is tried again.
    report = engine.run(name, SECONDS, seed=int(os.environ.get("FUZZ_SEED", "0")))
    assert report.found == [], "\n\n".join(report.found)
    assert report.inputs > ENOUGH.get(name, 1000)


@pytest.mark.parametrize("name", engine.engines())
def test_a_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    """Behind conditions that chance alone meets once in four thousand million times."""
    report = engine.run("planted", 15, engine=name, findings=tmp_path / "findings")
    assert any("planted" in text for text in report.found)
    (kept,) = (tmp_path / "findings").iterdir()
    assert kept.read_bytes().startswith(b"\xa7p\x03!")


def test_the_samples_are_read() -> None:
    """Each target's samples get through to the end, so that there is something to change."""
    opened = []
    for sample in targets.TARGETS["checkpoint"].samples():
        with targets._file(sample) as path:
            opened.append(len(targets.open_checkpoint(path)))
    assert opened == [2] * len(opened)
    for data in targets.TARGETS["picture"].samples():
        assert targets.read_picture(data, limits=targets.LIMITS).shape == (4, 4, 3)
    for data in targets.TARGETS["video"].samples():
        assert targets.read_video(targets.io.BytesIO(data), max_frames=8, limits=targets.LIMITS).frames.shape[0] == 3
    with pytest.raises(CorruptCheckpointError), targets._file(b"x") as path:
        targets.open_checkpoint(path)
    assert all(json.loads(data) for data in targets.TARGETS["configuration"].samples())
