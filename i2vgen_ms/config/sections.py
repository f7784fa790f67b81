"""The sections of configuration.json as classes: strict types, ranges, no unknown keys, no defaults, all frozen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from i2vgen_ms.config.bounds import MAX_TEXT
from i2vgen_ms.config.part import Part


def _file_name(name: Any) -> Any:
    if isinstance(name, str):
        parts = name.replace("\\", "/").split("/")
        outside = name.startswith(("/", "\\", "~")) or ".." in parts or ":" in name
        if outside or not name.isprintable() or not 0 < len(name) <= MAX_TEXT or parts[-1] in ("", "."):
            raise PydanticCustomError("name", "a file name inside the model folder is expected")
    return name


FileName = Annotated[str, BeforeValidator(_file_name)]
Size = Annotated[int, Field(ge=1, le=16384)]
Frames = Annotated[int, Field(ge=1, le=4096)]
Fps = Annotated[int, Field(ge=1, le=240)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]
BatchSize = Annotated[int, Field(ge=1, le=256)]
Dtype = Literal["float32", "float16", "bfloat16"]
Memory = Literal["auto", "fast", "balanced", "low"]
OnOom = Literal["raise", "lower"]
CudaGraphs = Literal["auto", "on", "off"]


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


# Channels of the network's extra input beside the first frame's latents, by what `input.first_frame` says.
FIRST_FRAME_CHANNELS = {"latents": 0, "latents-and-places": 3}


class PictureInput(Section):
    """How the picture is cut before the encoder sees it; crop_size in pixels.

    first_frame: whether the `latents` of the picture, cut to the video's size, are the network's extra input; with
        `latents-and-places` three channels more tell the network which frame, row and column a place is.
    """

    crop: Literal["centre-square", "fill", "pad"]
    crop_size: Size
    first_frame: Literal["unused", "latents", "latents-and-places"]


class ClipInput(Section):
    """How a clip is read and brought to the video's size, and what becomes of frames beyond num_frames.

    long_clips: `cut` leaves them out; `window` works on overlapping windows of num_frames, blended over `overlap`
    frames.
    """

    reader: Part
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
