"""The arguments of a call: each is one value of the configuration, changed for this call and checked like it.

So an argument has the name of what it changes, the range stands in the configuration's classes alone, and what a call
did can be written down as a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from i2vgen_ms import catalogue
from i2vgen_ms.config.schema import Configuration, PartSpec
from i2vgen_ms.errors import ArgumentError, ConfigurationError, nearest

PATHS = {
    "seed": "seed",
    "steps": "diffusion.steps",
    "num_frames": "output.num_frames",
    "fps": "output.fps",
    "width": "output.width",
    "height": "output.height",
    "crop": "input.crop",
    "batch_size": "batch_size",
}
PARTS = {"sampler": ("diffusion.sampler", "samplers"), "spacing": ("diffusion.spacing", "spacings")}
GUIDANCE = {"guidance_scale": "scale", "guidance_branches": "branches"}
DTYPES = ("float32", "float16", "bfloat16")
OTHERS = ("latents", "progress", "dtype", "output_type")
NAMES = (*PATHS, *PARTS, *GUIDANCE, *OTHERS)


def check_names(arguments: Mapping[str, Any]) -> None:
    """Raises ArgumentError for an argument that no call knows."""
    for name in arguments:
        if name not in NAMES:
            raise ArgumentError(f"unknown argument {name!r}; {nearest(name, NAMES)}")


def applied(configuration: Configuration, arguments: Mapping[str, Any]) -> Configuration:
    """The configuration of one call; an argument that is None leaves the configuration's value.

    Raises: ArgumentError that names the argument for an unknown one or a value that the configuration would not take.
    """
    check_names(arguments)
    for name, value in arguments.items():
        if value is not None and name not in OTHERS:
            configuration = _one(configuration, name, _plain(value))
    return configuration


def _one(configuration: Configuration, name: str, value: Any) -> Configuration:
    try:
        if name in PATHS:
            return configuration.replace(PATHS[name], value)
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


def _with_part(configuration: Configuration, path: str, slot: str, spec: PartSpec) -> Configuration:
    catalogue.build(slot, spec)  # so that a wrong name or option is found before any work
    return configuration.replace(path, spec)


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
