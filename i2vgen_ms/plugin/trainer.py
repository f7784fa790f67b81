"""ModelScope's trainers of both tasks, for `build_trainer('image-to-video-trainer', default_args=...)`.

Given ModelScope's arguments; what they mean for a run stands in its settings, and the run itself is
`i2vgen_ms.training`. ModelScope imports this module when one of the trainers is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from modelscope.trainers.base import BaseTrainer
from modelscope.trainers.builder import TRAINERS

from i2vgen_ms.config.json_file import read_object
from i2vgen_ms.errors import ArgumentError, ConfigurationError, nearest
from i2vgen_ms.training import Trainer
from i2vgen_ms.training.models import located
from i2vgen_ms.training.networks import described
from i2vgen_ms.training.settings import Settings, find, of_files

NAMES = (
    *("model", "model_revision", "cfg_file", "cfg_modify_fn", "train_dataset", "work_dir", "seed", "max_steps"),
    *("lora", "settings", "device", "resume", "progress"),
)
SOURCE_METHODS = ("plan", "prepare", "finish")


class StageTrainer(BaseTrainer):
    """One run of training.

    Args:
        model: a model folder or an id; None takes the settings'.
        model_revision: of an id.
        cfg_file: settings, a JSON file or the name of shipped ones; None is the shipped ones of the task.
        cfg_modify_fn: is given the settings' dict and returns another.
        train_dataset: a folder of videos and pictures, a .jsonl or .csv list, or a source of clips
            (`i2vgen_ms.training.data.batch.Source`); None takes the settings'.
        work_dir: the folder of the run. seed: of the run. max_steps: its length.
        lora: a dict such as {'rank': 16, 'alpha': 16, 'dropout': 0.0, 'targets': ['to_q', 'to_k', 'to_v', 'to_out']}.
        settings: values at dotted paths, such as {'optimiser.learning_rate': 1e-5}.
        device, resume, progress: as `i2vgen_ms.training.Trainer`'s.
    Raises: ArgumentError for an unknown argument, naming the nearest; what the run raises.
    """

    TASK: ClassVar[str]

    def __init__(self, **given: Any) -> None:
        given.pop("trust_remote_code", None)  # ModelScope's; no code of a model's folder is ever run
        for name in given:
            if name not in NAMES:
                raise ArgumentError(f"unknown argument {name!r}; {nearest(name, NAMES)}")
        file = find(given.get("cfg_file") or self.TASK)
        super().__init__(str(file))
        values = read_object(file)
        modify: Callable[[dict[str, Any]], dict[str, Any]] | None = given.get("cfg_modify_fn")
        settings = Settings.from_json(values if modify is None else modify(values), file.name)
        for path, value in self._changes(settings, given):
            settings = settings.replace(path, value)
        settings = located(settings, revision=given.get("model_revision"))
        configuration, _ = described(settings.model)
        if configuration.task != self.TASK:
            raise ConfigurationError(f"{settings.model} is a model of {configuration.task!r}, not of {self.TASK!r}")
        dataset = given.get("train_dataset")
        self.core = Trainer(
            settings,
            device=given.get("device"),
            resume=bool(given.get("resume", False)),
            progress=given.get("progress"),
            source=dataset if _is_source(dataset) else None,
        )

    def train(self, *args: Any, **kwargs: Any) -> str:
        """Trains to the end; returns the folder of what was made. Raises: ArgumentError for any argument."""
        _takes_nothing("train", args, kwargs, "what a run is stands in its settings, and 'resume' where it goes on")
        return str(self.core.train())

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The numbers of a validation of the network as it is now. Raises: ArgumentError for any argument."""
        _takes_nothing(
            "evaluate", args, kwargs, "give another network as 'model', with settings weights.st_unet 'model'"
        )
        return self.core.evaluate()

    @staticmethod
    def _changes(settings: Settings, given: Mapping[str, Any]) -> list[tuple[str, Any]]:
        paths = {"model": "model", "work_dir": "output", "seed": "seed", "max_steps": "length.steps", "lora": "lora"}
        changes = [(path, _plain(given[name])) for name, path in paths.items() if given.get(name) is not None]
        dataset = given.get("train_dataset")
        if isinstance(dataset, (str, os.PathLike)):
            changes.append(("data", of_files(settings.data, dataset)))
        elif dataset is not None and not _is_source(dataset):
            raise ArgumentError(
                f"train_dataset is a folder, a list of files, or a source of clips with {', '.join(SOURCE_METHODS)}; "
                f"not {dataset!r:.80}"
            )
        return [*changes, *(given.get("settings") or {}).items()]


@TRAINERS.register_module(module_name="image-to-video-trainer", force=True)
class ImageToVideoTrainer(StageTrainer):
    """Training of the first stage.

    >>> from modelscope.trainers import build_trainer
    >>> arguments = {'model': 'damo/Image-to-Video', 'train_dataset': 'videos/', 'work_dir': 'runs/mine'}
    >>> build_trainer('image-to-video-trainer', default_args=arguments).train()
    'runs/mine/model'
    """

    TASK = "image-to-video"


@TRAINERS.register_module(module_name="video-to-video-trainer", force=True)
class VideoToVideoTrainer(StageTrainer):
    """Training of the second stage; arguments as StageTrainer's."""

    TASK = "video-to-video"


def _is_source(dataset: Any) -> bool:
    return all(callable(getattr(dataset, name, None)) for name in SOURCE_METHODS)


def _takes_nothing(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], instead: str) -> None:
    """Raises: ArgumentError, if ModelScope's arguments of a method are given; None is as good as none."""
    given = [
        *(value for value in args if value is not None),
        *(f"{key}={value!r:.80}" for key, value in kwargs.items() if value is not None),
    ]
    if given:
        raise ArgumentError(f"{name} takes no arguments here, got {given[0]!s:.120}; build_trainer does: {instead}")


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
