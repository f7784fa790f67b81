"""`i2vgen-ms train`: what its options change, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from i2vgen_ms import training
from i2vgen_ms.cli import main
from i2vgen_ms.training.settings import Settings
from tests.training import small


class Recorded:
    """A trainer that only writes down what it was given."""

    made: list[tuple[Settings, dict[str, Any]]]
    is_main = True

    def __init__(self, settings: Settings, **given: Any) -> None:
        self.made.append((settings, given))
        self.settings = settings

    def train(self) -> Path:
        return Path(self.settings.output) / "model"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, dict[str, Any]]]:
    Recorded.made = []
    monkeypatch.setattr(training, "Trainer", Recorded)
    return Recorded.made


def run(*words: object) -> int:
    return main.main(["train", *map(str, words)])


def test_a_run_of_a_settings_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small.folder(tmp_path / "model", "image-to-video")
    settings = small.settings("small-image-to-video", model, tmp_path / "run")
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings.to_json()))
    assert run(file, "--device", "cpu", "--set", "length.steps=1", "--no-progress") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run' / 'model'}\n"
    assert [entry["step"] for entry in small.log(tmp_path / "run")] == [1]
    assert (tmp_path / "run" / "model" / "st_unet.safetensors").is_file()


def test_without_options_the_settings_are_as_they_are_shipped(recorded) -> None:
    assert run("small-autoencoder") == 0
    ((settings, given),) = recorded
    assert settings == training.read("small-autoencoder")
    assert given == {"device": None, "resume": False, "progress": None}


def test_options_change_the_settings(recorded, tmp_path) -> None:
    words = ["--set", "optimiser.learning_rate=0.5", "--set", "output=here", "--set", "clips.sizes=[[64, 32]]"]
    words += ["--set", "weights.st_unet=model"]
    assert run("small-image-to-video", *words, "--data", "videos", "--lora", "--resume", "--device", "cpu") == 0
    ((settings, given),) = recorded
    assert settings.optimiser.learning_rate == 0.5
    assert settings.output == "here"
    assert settings.weights.st_unet == "model"
    assert settings.clips.sizes == [[64, 32]]
    files = {"kind": "files", "path": "videos", "workers": 10, "cache": None, "held_out": 1}
    assert settings.data.model_dump() == files
    assert settings.lora.model_dump() == {
        "rank": 16,
        "alpha": 16,
        "dropout": 0.0,
        "targets": ["to_q", "to_k", "to_v", "to_out"],
    }
    assert given == {"device": "cpu", "resume": True, "progress": None}
    model = small.folder(tmp_path / "model", "image-to-video")
    assert run("image-to-video", "--model", model, "--lora", 4, "-o", "there", "--data", "list.csv") == 0
    settings = recorded[1][0]
    assert (settings.lora.rank, settings.lora.alpha, settings.output, settings.model) == (4, 4, "there", str(model))
    assert settings.data.model_dump() == {**files, "path": "list.csv", "workers": 4, "held_out": 4}


def test_what_is_wrong_is_one_line(recorded, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("small-image-to-video", "--set", "optimizer.learning_rate=1") == 1
    error = capsys.readouterr().err
    assert error == (
        "i2vgen-ms: settings: optimizer.learning_rate: there is no 'optimizer'; did you mean 'optimiser'? "
        + error.partition("'optimiser'? ")[2]
    )
    assert run("small-imge-to-video") == 1
    assert "did you mean 'small-image-to-video'?" in capsys.readouterr().err
    assert run("small-autoencoder", "--lora") == 1
    assert "there is no 'lora'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run("small-image-to-video", "--set", "steps")
    assert "'steps' is not PATH=VALUE" in capsys.readouterr().err
    assert recorded == []
