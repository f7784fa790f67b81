"""Settings: every number in the file, and clear words for what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from i2vgen_ms.config import reader
from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.training.settings import Settings, read, shipped


@pytest.mark.parametrize("name", shipped())
def test_shipped_settings_read_and_round_trip(name: str) -> None:
    settings = read(name)
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert settings.model.startswith("damo/") or settings.model in reader.variants()


def test_the_shipped_runs_of_the_small_models_end_before_nine_minutes() -> None:
    for name in shipped():
        if name.startswith("small-"):
            assert read(name).length.minutes < 9


BATCH = {"clips": 1, "pictures": 1, "accumulation": 1}
FILES = {"kind": "files", "path": "x", "workers": 0, "cache": None, "held_out": 0}
WRONG = [
    ("optimiser.learning_rate", 0.0, "optimiser.learning_rate: input should be greater than 0, got 0.0"),
    ("batch", {**BATCH, "accumulatoin": 1}, "batch.accumulatoin: unknown key; did you mean 'accumulation'?"),
    ("length", {"steps": None, "minutes": None}, "length: give steps or minutes"),
    ("phases", [{"share": 0.5, "rate": 1.0, "data": None}], "phases: the phases' shares .* must sum to 1, not 0.5"),
    ("phases", [{"share": 1.0, "rate": 1.0, "data": None, "x": 1}], "phases.0.x: unknown key; .*Known: data, rate, sh"),
    ("data", {"kind": "wrld"}, "data: .*'wrld'"),
    ("data.split", 3, "data.world.split: .*got 3"),
    ("data", {**FILES, "pth": "x"}, "data.files.pth: unknown key; did you mean 'path'?"),
    ("numerics.train", "fp8", "numerics.train: .*'fp16'.*got 'fp8'"),
    ("objective.degrading", {"full": 0.7}, "objective.degrading.factors: missing"),
    ("seed", -1, "seed: .*greater than or equal to 0"),
    ("lengthh.steps", 1, "lengthh.steps: there is no 'lengthh'; did you mean 'length'?"),
    ("phases.3.share", 1, "phases.3.share: there is no '3'; .*Known: 0"),
    ("task", "unet", "task: 'unet' is unknown; did you mean 'st_unet'?"),
    ("format", "1", "format: .*got '1'"),
]


@pytest.mark.parametrize(("path", "value", "words"), WRONG)
def test_wrong_values_are_refused_by_name(path: str, value: object, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read("small-video-to-video", {path: value})


def test_degrading_shares_are_shares() -> None:
    degrading = read("small-video-to-video").to_json()["objective"]["degrading"]
    with pytest.raises(ConfigurationError, match=r"full and between are shares .* 0.9 and 0.2 are more than all"):
        read("small-video-to-video", {"objective.degrading": degrading | {"full": 0.9, "between": 0.2}})


def test_values_can_be_replaced_at_their_paths() -> None:
    settings = read("image-to-video", {"phases.1.rate": 0.5, "clips.sizes": [[64, 32], [32, 64]]})
    assert settings.phases[1].rate == 0.5
    assert settings.clips.sizes == [[64, 32], [32, 64]]
    assert read("image-to-video").phases[1].rate == 0.2
    phase = read("image-to-video").phases[0].model_copy(update={"share": 1.0})
    assert len(settings.replace("phases", [phase.model_dump()]).phases) == 1


def test_a_name_that_is_neither_a_file_nor_shipped(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"neither a file nor .* did you mean 'small-encoders'"):
        read("small-encoder")
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"mine.json: task: None is unknown"):
        read(tmp_path / "mine.json")
