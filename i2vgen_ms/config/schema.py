"""A whole configuration.json, one class a task.

Given a dict that JSON made, `Configuration.from_json` returns the values or raises ConfigurationError with the JSON
path. The sections are in sections.py, the parts in part.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self, cast

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from i2vgen_ms.config.messages import explain
from i2vgen_ms.config.part import Part, PartSpec
from i2vgen_ms.config.sections import (
    FIRST_FRAME_CHANNELS,
    BatchSize,
    ClipInput,
    CudaGraphs,
    Diffusion,
    DtypeByDevice,
    Memory,
    OnOom,
    Output,
    PictureInput,
    PictureOutput,
    Prompt,
    Section,
    Seed,
    SolverModes,
    Start,
    TypeName,
    Weights,
)
from i2vgen_ms.errors import ConfigurationError, nearest

FORMAT = "i2vgen-ms/1"
FILE = "configuration.json"


class Configuration(Section):
    """One whole configuration.json in our layout; what a task has beside this stands in its own class below."""

    framework: Literal["pytorch"]
    task: str
    format: Literal["i2vgen-ms/1"]
    model: TypeName
    pipeline: TypeName
    weights: Weights
    encoder: Part
    st_unet: Part
    autoencoder: Part
    diffusion: Diffusion
    output: Output
    seed: Seed
    batch_size: BatchSize
    memory: Memory
    on_oom: OnOom
    cuda_graphs: CudaGraphs
    compile: bool
    dtype: DtypeByDevice

    @classmethod
    def from_json(cls, values: Any, source: str = FILE) -> Configuration:
        """Checks a dict that JSON made, by the class of its task. `source` names the file in ConfigurationError."""
        task = values.get("task") if isinstance(values, dict) else None
        if isinstance(values, dict) and "task" not in values:
            raise ConfigurationError(f"{source}: task: missing; give a value")
        if not isinstance(task, str) or task not in TASKS:
            raise ConfigurationError(f"{source}: task: {task!r:.80} is unknown; {nearest(str(task), TASKS)}")
        try:
            configuration = TASKS[task].model_validate(values)
        except ValidationError as error:
            raise ConfigurationError(explain(error, TASKS[task], source)) from None
        for path, spec in configuration.parts():
            object.__setattr__(spec, "where", f"{source}: {path}")
        return configuration

    def to_json(self) -> dict[str, Any]:
        """The dict in the file's layout; `from_json` of it equals this configuration."""
        return _to_json(self)

    def replace(self, path: str, value: Any) -> Self:
        """A copy with the value at a dotted path changed, e.g. `replace('diffusion.steps', 20)`.

        A part may be given as a PartSpec, a dict, or just its name (then without options).
        """
        values = self.to_json()
        *parents, last = path.split(".")
        target = values
        for key in parents:
            if not isinstance(target.get(key), dict):
                raise ConfigurationError(f"{path}: there is no section {key!r} in the configuration")
            target = target[key]
        is_part = isinstance(target.get(last), dict) and "type" in target[last]
        if isinstance(value, PartSpec):
            value = value.to_json()
        target[last] = {"type": value} if is_part and isinstance(value, str) else value
        return cast(Self, Configuration.from_json(values, source="configuration"))

    def parts(self) -> Iterator[tuple[str, PartSpec]]:
        """Every part at its dotted path; parts inside a part's options are not listed."""
        yield from _parts(self, "")

    @model_validator(mode="after")
    def _sizes_meet(self) -> Self:
        context = self.st_unet.options.get("context")
        if isinstance(context, dict) and "in_channels" in context:
            _same(self, ("st_unet", "context", "in_channels"), ("encoder", "embed_dim"))
        if isinstance(context, dict) and context.get("type") == "text" and "text" in self.encoder.options:
            _same(self, ("st_unet", "context_channels"), ("encoder", "text", "width"))
        _same(self, ("st_unet", "latent_channels"), ("autoencoder", "embed_channels"))
        return self


class ImageToVideoConfiguration(Configuration):
    """Stage 1."""

    task: Literal["image-to-video"]
    input: PictureInput
    output: PictureOutput

    @model_validator(mode="after")
    def _extra_input_is_there(self) -> Self:
        extra, beside = self.st_unet.options.get("extra_channels", 0), FIRST_FRAME_CHANNELS.get(self.input.first_frame)
        wanted = 0 if beside is None else self.autoencoder.options.get("embed_channels", extra - beside) + beside
        if extra != wanted:
            message = f"{extra} is not what input.first_frame = {self.input.first_frame!r} gives, {wanted} channels"
            path = ("st_unet", "extra_channels")
            raise PydanticCustomError("option", "{message}", {"message": message, "path": path})
        return self


class VideoToVideoConfiguration(Configuration):
    """Stage 2."""

    task: Literal["video-to-video"]
    input: ClipInput
    prompt: Prompt
    start: Start
    solver_modes: SolverModes


TASKS: dict[str, type[Configuration]] = {
    "image-to-video": ImageToVideoConfiguration,
    "video-to-video": VideoToVideoConfiguration,
}


def _same(configuration: Configuration, ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    """Two options that describe one size must be equal, where both parts have them."""
    values = []
    for section, *keys in (ours, theirs):
        value: Any = getattr(configuration, section).options
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        values.append(value)
    if None not in values and values[0] != values[1]:
        message = f"{values[0]} does not fit {'.'.join(theirs)} = {values[1]}; they describe the same size"
        raise PydanticCustomError("option", "{message}", {"message": message, "path": ours})


def _to_json(section: BaseModel) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in section:
        if isinstance(value, BaseModel):
            values[name] = _to_json(value)
        else:
            values[name] = value.to_json() if isinstance(value, PartSpec) else value
    return values


def _parts(section: BaseModel, prefix: str) -> Iterator[tuple[str, PartSpec]]:
    for name, value in section:
        if isinstance(value, PartSpec):
            yield prefix + name, value
        elif isinstance(value, BaseModel):
            yield from _parts(value, f"{prefix}{name}.")
