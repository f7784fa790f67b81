"""The arguments of a call: each is one value of the configuration, changed for this call and checked like it.

So an argument has the name of what it changes, the range stands in the configuration's classes alone, and what a call
did can be written down as a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from i2vgen_ms import catalogue
from i2vgen_ms.config.schema import Configuration, PartSpec
from i2vgen_ms.errors import ArgumentError, ConfigurationError, nearest

Settings = TypeVar("Settings", bound=Configuration)

PATHS = {
    "seed": "seed",
    "memory": "memory",
    "on_oom": "on_oom",
    "cuda_graphs": "cuda_graphs",
    "steps": "diffusion.steps",
    "timestep_rounding": "diffusion.timestep_rounding",
    "fps": "output.fps",
    "width": "output.width",
    "height": "output.height",
}
TASK_PATHS = {
    "image-to-video": {"num_frames": "output.num_frames", "crop": "input.crop", "batch_size": "batch_size"},
    "video-to-video": {
        "max_frames": "output.num_frames",
        "fit": "input.fit",
        "long_clips": "input.long_clips",
        "overlap": "input.overlap",
        "negative_prompt": "prompt.negative",
        "prompt_suffix": "prompt.suffix",
        "strength": "start.strength",
        "start_scale": "start.scale",
        "posterior": "start.posterior",
    },
}
PARTS = {"sampler": ("diffusion.sampler", "samplers"), "spacing": ("diffusion.spacing", "spacings")}
GUIDANCE = {"guidance_scale": "scale", "guidance_rescale": "rescale", "guidance_branches": "branches"}
DTYPES = ("float32", "float16", "bfloat16")
# What is no value of the configuration.
OTHERS = ("progress", "dtype", "output_type")
TASK_OTHERS = {"image-to-video": ("latents",), "video-to-video": ("text", "window", "noised_latents", "brownian_seed")}


def names(task: str) -> tuple[str, ...]:
    """The names of all arguments of a call for a task."""
    return (*PATHS, *TASK_PATHS[task], *PARTS, *GUIDANCE, *others(task))


def others(task: str) -> tuple[str, ...]:
    """Those of them that change no value of the configuration."""
    return (*OTHERS, *TASK_OTHERS[task])


def check_names(arguments: Mapping[str, Any], task: str) -> None:
    """Raises ArgumentError for an argument that no call for this task knows."""
    known = names(task)
    for name in arguments:
        if name not in known:
            raise ArgumentError(f"unknown argument {name!r}; {nearest(name, known)}")


def applied(configuration: Settings, arguments: Mapping[str, Any]) -> Settings:
    """The configuration of one call; an argument that is None leaves the configuration's value.

    Raises: ArgumentError that names the argument for an unknown one or a value that the configuration would not take.
    """
    check_names(arguments, configuration.task)
    unchanged = others(configuration.task)
    for name, value in arguments.items():
        if value is not None and name not in unchanged:
            configuration = _one(configuration, name, _plain(value))
    return configuration


def _one(configuration: Settings, name: str, value: Any) -> Settings:
    paths = PATHS | TASK_PATHS[configuration.task]
    try:
        if name in paths:
            return configuration.replace(paths[name], value)
        if name in GUIDANCE:
            guidance = configuration.diffusion.guidance
            options = {**guidance.options, GUIDANCE[name]: value}
            return _with_part(configuration, "diffusion.guidance", "guidance", PartSpec(guidance.type, options, name))
        path, slot = PARTS[name]
        spec = value if isinstance(value, dict) else {"type": value}
        return _with_part(configuration, path, slot, PartSpec.from_json(spec, name))
    except ConfigurationError as error:
        raise ArgumentError(f"{name}={value!r}: {error}") from error
    except ValueError as error:
        raise ArgumentError(f"{name}={value!r} is not a name or a dict with a 'type': {error}") from error


def _with_part(configuration: Settings, path: str, slot: str, spec: PartSpec) -> Settings:
    catalogue.build(slot, spec)  # so that a wrong name or option is found before any work
    return configuration.replace(path, spec)


def branches(guidance: PartSpec) -> Any:
    """How a guidance part runs its branches, by its options or else their defaults; None for one without a choice."""
    known = catalogue.options("guidance", guidance.type)
    return guidance.options.get("branches", known["branches"].default) if "branches" in known else None


def _plain(value: Any) -> Any:
    """numpy's and torch's scalars as Python's, which is what the strict configuration takes."""
    item: Callable[[], Any] | None = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", 1) == 0 else value


def dtypes(configuration: Configuration, device_type: str, asked: str | Mapping[str, str] | None) -> dict[str, str]:
    """The dtype name of each network (`encoder`, `st_unet`, `autoencoder`) on a kind of device.

    asked: None for the configuration's; one name for all networks; or names by network.
    Raises: ArgumentError for another dtype or network.
    """
    table: dict[str, str] = getattr(configuration.dtype, device_type).model_dump()
    if asked is None:
        return table
    by_part = dict(asked) if isinstance(asked, Mapping) else dict.fromkeys(table, asked)
    for part, name in by_part.items():
        text = str(name).removeprefix("torch.")
        if part not in table:
            raise ArgumentError(f"dtype: there is no network {part!r}; {nearest(part, table)}")
        if text not in DTYPES:
            raise ArgumentError(f"dtype {text!r} is not supported; {nearest(text, DTYPES)}")
        table[part] = text
    return table
