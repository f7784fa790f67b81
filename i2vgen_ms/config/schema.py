"""The layout of configuration.json as classes: strict types, ranges, no unknown keys, no defaults, nothing mutable.

Given a dict that JSON made, `Configuration.from_json` returns the values or raises ConfigurationError with the JSON
path. A part is `{"type": name, ...options}` and becomes a `PartSpec`; whether a part of that name exists and takes
those options is the catalogue's question, not this module's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from i2vgen_ms.config.bounds import MAX_TEXT, check_options
from i2vgen_ms.config.messages import explain
from i2vgen_ms.errors import ConfigurationError, nearest

FORMAT = "i2vgen-ms/1"
FILE = "configuration.json"


@dataclass(frozen=True)
class PartSpec:
    """One swappable part: its name in the catalogue and the keyword arguments of its constructor.

    `where` is the JSON path it was read from; it only serves error messages.
    """

    type: str
    options: dict[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False, repr=False)

    @classmethod
    def from_json(cls, value: Any, where: str = "") -> PartSpec:
        """`{"type": name, ...options}` as a PartSpec; `where` is the path that errors begin with."""
        try:
            parsed = _part(value)
        except PydanticCustomError as error:  # pydantic's errors do not leave this package
            path = ".".join(str(key) for key in (where, *(error.context or {}).get("path", ())) if key != "")
            raise ConfigurationError(f"{path or 'a part'}: {error.message()}") from None
        return cls(parsed.type, parsed.options, where)

    def to_json(self) -> dict[str, Any]:
        """The part as the file holds it; a copy."""
        return {"type": self.type, **copy.deepcopy(self.options)}


def _part(value: Any) -> PartSpec:
    if isinstance(value, PartSpec):
        value = value.to_json()
    if not isinstance(value, dict):
        raise PydanticCustomError("part", 'an object {"type": name, ...options} is expected')
    if "type" not in value:
        raise PydanticCustomError("option", "{message}", {"message": "missing", "path": ("type",)})
    name = value["type"]
    if not isinstance(name, str) or not name:
        message = f"a part's name is expected, got {name!r:.60}"
        raise PydanticCustomError("option", "{message}", {"message": message, "path": ("type",)})
    check_options(value)
    return PartSpec(name, {key: copy.deepcopy(item) for key, item in value.items() if key != "type"})


def _file_name(name: Any) -> Any:
    if isinstance(name, str):
        parts = name.replace("\\", "/").split("/")
        outside = name.startswith(("/", "\\", "~")) or ".." in parts or ":" in name
        if outside or not name.isprintable() or not 0 < len(name) <= MAX_TEXT or parts[-1] in ("", "."):
            raise PydanticCustomError("name", "a file name inside the model folder is expected")
    return name


Part = Annotated[PartSpec, BeforeValidator(_part)]
FileName = Annotated[str, BeforeValidator(_file_name)]
Size = Annotated[int, Field(ge=1, le=16384)]
Frames = Annotated[int, Field(ge=1, le=4096)]
Fps = Annotated[int, Field(ge=1, le=240)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]
BatchSize = Annotated[int, Field(ge=1, le=256)]
Dtype = Literal["float32", "float16", "bfloat16"]


class Section(BaseModel):
    """Base of every section: strict, closed, frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class TypeName(Section):
    """What modelscope looks the model's and the pipeline's class up by."""

    type: str


class Weights(Section):
    """File names inside the model folder."""

    encoder: FileName
    st_unet: FileName
    autoencoder: FileName


class Diffusion(Section):
    """Noise schedule, what the network predicts, and how it is sampled."""

    schedule: Part
    prediction: Literal["eps", "v", "x0"]
    spacing: Part
    sampler: Part
    steps: Annotated[int, Field(ge=1, le=10_000)]
    guidance: Part
    timestep_rounding: Literal["published", "exact"]
    offset_noise: Annotated[float, Field(ge=0, le=10)]


class PictureInput(Section):
    """How the picture is cut before the encoder sees it; crop_size in pixels."""

    crop: Literal["centre-square", "fill", "pad"]
    crop_size: Size


class ClipInput(Section):
    """How a clip is brought to the video's size, and what becomes of frames beyond num_frames.

    long_clips: `cut` leaves them out; `window` works on overlapping windows of num_frames, blended over `overlap`
    frames.
    """

    fit: Literal["squash", "crop", "pad", "keep"]
    long_clips: Literal["cut", "window"]
    overlap: Annotated[int, Field(ge=1, le=4095)]


class Prompt(Section):
    """What is added to the user's text, and what the unconditional branch is told."""

    suffix: Annotated[str, Field(max_length=2000)]
    negative: Annotated[str, Field(max_length=2000)]


class Start(Section):
    """Where sampling begins.

    strength: share of the timesteps; 0.6 of 1000 noises the clip to timestep 599.
    scale: `published` or `exact`, the factor of the start (see diffusion.schedule.start_scale).
    posterior: whether the clip's latents are a `sample` of the autoencoder's posterior or its `mode`.
    """

    strength: Annotated[float, Field(gt=0, le=1)]
    scale: Literal["published", "exact"]
    posterior: Literal["sample", "mode"]


class SolverMode(Section):
    """A sampler and its steps, for one value of the published `solver_mode`."""

    sampler: Part
    steps: Annotated[int, Field(ge=1, le=10_000)]


class SolverModes(Section):
    """What the published `solver_mode` chooses: `fast`, or anything else."""

    fast: SolverMode
    other: SolverMode


class Output(Section):
    """Size of the video in pixels and frames, and the file's rate.

    num_frames: of the video, or, for a clip, the most that the network is given at once. fps: `source` keeps a clip's.
    """

    width: Size
    height: Size
    num_frames: Frames
    fps: Fps | Literal["source"]
    writer: Part


class PictureOutput(Output):
    """fps conditions the network too, and there is no source to take it from."""

    fps: Fps


class DtypeByPart(Section):
    """The dtype that each network computes in on one kind of device."""

    encoder: Dtype
    st_unet: Dtype
    autoencoder: Dtype


class DtypeByDevice(Section):
    """The dtypes of the networks by the kind of device."""

    cpu: DtypeByPart
    cuda: DtypeByPart


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
        _same(self, ("st_unet", "latent_channels"), ("autoencoder", "embed_channels"))
        return self


class ImageToVideoConfiguration(Configuration):
    """Stage 1."""

    task: Literal["image-to-video"]
    input: PictureInput
    output: PictureOutput


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
            value = value.get(key)
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
