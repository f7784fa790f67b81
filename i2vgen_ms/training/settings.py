"""A training's settings: a JSON object that holds every number of a run, checked strictly.

Given a file, the name of a shipped one (configuration/training/*.json) or a dict; returns the values or raises
ConfigurationError with the JSON path. It builds and trains nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from i2vgen_ms.config.data import configuration_folder
from i2vgen_ms.config.json_file import read_object
from i2vgen_ms.config.messages import explain
from i2vgen_ms.config.sections import Section, Seed
from i2vgen_ms.errors import ConfigurationError, nearest
from i2vgen_ms.training import sections as parts

FORMAT = "i2vgen-ms-training/1"


class Sources(Section):
    """Where the weights of each network come from.

    `random`: new ones. `model`: the model's own file. Anything else: a folder with a configuration.json, whose section
    about this network is taken over with the weights, such as an earlier run's `model`.
    """

    encoder: parts.Place
    st_unet: parts.Place
    autoencoder: parts.Place


class Settings(Section):
    """One run; what a task has beside this stands in its own class below.

    model: a model folder, or the name of a shipped variant. text_model: the same for the text tower's (encoders only).
    output: the folder of the run; what is made stands in its `model` or `lora`.
    """

    format: Literal["i2vgen-ms-training/1"]
    task: str
    model: parts.Place
    weights: Sources
    output: parts.Place
    seed: Seed
    length: parts.Length
    batch: parts.BatchSizes
    clips: parts.Clips
    data: parts.Data
    optimiser: parts.Optimiser
    rate: parts.Rate
    phases: Annotated[list[parts.Phase], Field(min_length=1, max_length=32)]
    ema: Annotated[float, Field(ge=0, lt=1)]
    numerics: parts.Numerics
    checkpointing: Literal["none", "torch", "fairscale"]
    state: parts.Keeping
    log: parts.Logging
    validation: parts.Validation
    export: Literal["float32", "float16", "bfloat16"]

    @classmethod
    def from_json(cls, values: Any, source: str = "settings") -> Settings:
        """Checks a dict that JSON made, by the class of its task. `source` begins the words of ConfigurationError."""
        task = values.get("task") if isinstance(values, dict) else None
        if not isinstance(task, str) or task not in TASKS:
            raise ConfigurationError(f"{source}: task: {task!r:.80} is unknown; {nearest(str(task), TASKS)}")
        try:
            return TASKS[task].model_validate(values)
        except ValidationError as error:
            raise ConfigurationError(explain(error, TASKS[task], source)) from None

    def to_json(self) -> dict[str, Any]:
        """The dict in the file's layout; `from_json` of it equals these settings."""
        return self.model_dump()

    def replace(self, path: str, value: Any) -> Self:
        """A copy with the value at a dotted path changed: `replace('length.steps', 20)`, `replace('phases.0.rate', 1)`.

        Raises: ConfigurationError for a path that is not there or a value that the settings would not take.
        """
        values = self.to_json()
        target: Any = values
        *parents, last = path.split(".")
        for key in parents:
            target = _inside(target, key, path)
        _inside(target, last, path)
        target[int(last) if isinstance(target, list) else last] = _plain(value)
        return cast(Self, Settings.from_json(values))

    @model_validator(mode="after")
    def _graphs_need_what_is_remembered(self) -> Self:
        if self.numerics.graphs and self.checkpointing != "none":
            message = (
                f"graphs cannot compute again what checkpointing {self.checkpointing!r} forgets; give 'none' there"
            )
            raise PydanticCustomError("option", "{message}", {"message": message, "path": ("numerics", "graphs")})
        return self

    @model_validator(mode="after")
    def _shares_meet(self) -> Self:
        total = sum(phase.share for phase in self.phases)
        if abs(total - 1) > 1e-6:
            message = f"the phases' shares are of the whole run and must sum to 1, not {total:g}"
            raise PydanticCustomError("option", "{message}", {"message": message, "path": ("phases",)})
        return self


class DenoisingSettings(Settings):
    """Training of the ST-UNet of either stage, in full, or of adapters beside it (`lora`)."""

    task: Literal["st_unet"]
    objective: parts.DenoisingObjective
    lora: parts.Lora | None


class AutoencoderSettings(Settings):
    """Training of the autoencoder."""

    task: Literal["autoencoder"]
    objective: parts.AutoencoderObjective


class EncodersSettings(Settings):
    """Training of both encoders against each other: pictures of `model`, words of `text_model`."""

    task: Literal["encoders"]
    text_model: parts.Place
    objective: parts.ContrastiveObjective


TASKS: dict[str, type[Settings]] = {
    "st_unet": DenoisingSettings,
    "autoencoder": AutoencoderSettings,
    "encoders": EncodersSettings,
}


def shipped() -> list[str]:
    """Names of the settings that come with this package."""
    return sorted(path.stem for path in _folder().glob("*.json"))


def find(name: str | os.PathLike[str]) -> Path:
    """The file of settings: a path, or the name of shipped ones. Raises: ConfigurationError."""
    path = Path(name)
    if path.is_file():
        return path
    if os.fspath(name) not in shipped():
        raise ConfigurationError(
            f"{os.fspath(name)!r} is neither a file nor the name of shipped settings; "
            f"{nearest(os.fspath(name), shipped())}"
        )
    return _folder() / f"{name}.json"


def read(name: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a file, or the shipped ones of that name, with the values at dotted paths changed.

    Raises: ConfigurationError for a file that is not there or not right.
    """
    path = find(name)
    settings = Settings.from_json(read_object(path), path.name)
    for place, value in (changes or {}).items():
        settings = settings.replace(place, value)
    return settings


def of_files(data: parts.Data, path: str | os.PathLike[str]) -> dict[str, Any]:
    """A `data` section of the files at a path; what else it says is as in `data`, as far as that has it."""
    own = data.model_dump() if data.kind == "files" else {"cache": None, "held_out": 1}
    return {**own, "kind": "files", "path": os.fspath(path), "workers": data.workers}


def _folder() -> Path:
    return configuration_folder() / "training"


def _inside(target: Any, key: str, path: str) -> Any:
    if isinstance(target, dict) and key in target:
        return target[key]
    if isinstance(target, list) and key.isdecimal() and int(key) < len(target):
        return target[int(key)]
    known = list(target) if isinstance(target, dict) else range(len(target)) if isinstance(target, list) else []
    raise ConfigurationError(f"settings: {path}: there is no {key!r}; {nearest(key, map(str, known))}")


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value
