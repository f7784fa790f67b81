"""ModelScope's `build_trainer` for both tasks."""

from __future__ import annotations

import subprocess
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.training import read
from i2vgen_ms.training.data.world import WorldSource
from tests.training import small

MODEL = {"encoder": "model", "st_unet": "model", "autoencoder": "model"}
SHORT: dict[str, Any] = {
    "length.minutes": None,
    "batch.clips": 1,
    "clips.frames": [2],
    "clips.sizes": [[32, 16]],
    "clips.pictures_every": 0,
    "data.workers": 0,
    "validation.times": 0,
    "validation.clips": 1,
    "validation.steps": 1,
    "log.tensorboard": False,
    "state.every": 0,
    "batch.accumulation": 1,
    "numerics.train": "no",
    "clips.fps": [8],
}


@pytest.fixture(scope="module")
def build() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from modelscope.trainers import build_trainer

        import i2vgen_ms  # noqa: F401  # the only line that is new

    return build_trainer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    place = tmp_path_factory.mktemp("models")
    return SimpleNamespace(
        first=small.folder(place / "first", "image-to-video"), second=small.folder(place / "second", "video-to-video")
    )


@pytest.mark.parametrize("task", ["image-to-video", "video-to-video"])
def test_a_run_through_modelscope(build, models, tmp_path, task: str) -> None:
    model = models.first if task == "image-to-video" else models.second
    arguments = {
        "model": str(model),
        "train_dataset": WorldSource(seed=0, split="train"),
        "work_dir": tmp_path / "run",
        "max_steps": 2,
        "seed": 7,
        "device": "cpu",
        "progress": False,
        "settings": SHORT,
    }
    trainer = build(f"{task}-trainer", default_args=arguments)
    assert trainer.core.settings.seed == 7
    assert trainer.core.settings.optimiser.learning_rate == read(task).optimiser.learning_rate
    assert trainer.cfg.task == "st_unet", "ModelScope's own view of the settings"
    assert trainer.train() == str(tmp_path / "run" / "model")
    assert small.log(tmp_path / "run")[-1]["step"] == 2
    assert {"loss", "psnr"} <= trainer.evaluate(None).keys()
    with pytest.raises(ArgumentError, match=r"evaluate takes no arguments here, got checkpoint_path='x\.pth'"):
        trainer.evaluate(checkpoint_path="x.pth")
    with pytest.raises(ArgumentError, match=r"train takes no arguments here, got x\.pth; build_trainer does"):
        trainer.train("x.pth")


def test_settings_by_name_and_changed_by_a_function(build, models, tmp_path) -> None:
    def modify(values: dict[str, Any]) -> dict[str, Any]:
        values["weights"] = MODEL
        values["rate"]["warm_up"] = 0.5
        return values

    trainer = build(
        "image-to-video-trainer",
        default_args={
            "cfg_file": "small-image-to-video",
            "cfg_modify_fn": modify,
            "model": str(models.first),
            "device": "cpu",
            "max_steps": 2,
            "work_dir": str(tmp_path),
            "train_dataset": str(tmp_path),
            "lora": {**LORA, "rank": 2},
            "settings": SHORT,
        },
    )
    settings = trainer.core.settings
    assert settings.rate.warm_up == 0.5
    assert settings.lora.rank == 2
    assert settings.data.model_dump() == {
        "kind": "files",
        "path": str(tmp_path),
        "workers": 0,
        "cache": None,
        "held_out": 1,
    }


LORA = {"rank": 4, "alpha": 4, "dropout": 0.0, "targets": ["to_q"]}


def test_wrong_arguments_are_named(build, models, tmp_path) -> None:
    arguments = {"model": str(models.second), "device": "cpu", "work_dir": str(tmp_path), "settings": SHORT}
    with pytest.raises(ConfigurationError, match="is a model of 'video-to-video', not of 'image-to-video'"):
        build("image-to-video-trainer", default_args=dict(arguments))
    with pytest.raises(ArgumentError, match="unknown argument 'max_epochs'; did you mean 'max_steps'"):
        build("video-to-video-trainer", default_args=arguments | {"max_epochs": 3})
    with pytest.raises(ArgumentError, match="train_dataset is a folder, a list of files, or a source"):
        build("video-to-video-trainer", default_args=arguments | {"train_dataset": 3})
    with pytest.raises(ConfigurationError, match="neither a file nor the name of shipped settings"):
        build("video-to-video-trainer", default_args=arguments | {"cfg_file": "nothing"})


@pytest.mark.full
def test_who_makes_videos_imports_no_training() -> None:
    code = "import sys, i2vgen_ms.plugin; assert 'i2vgen_ms.training' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
