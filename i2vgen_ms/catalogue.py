"""The catalogue of swappable parts: a slot (`samplers`) and a name (`heun`) lead to a class or function.

Entries come from registry/parts/SLOT.json, and from installed packages through the entry-point group `i2vgen_ms.parts`
(entry point `samplers.NAME = package.module:Class`). A downloaded model folder can choose a name; it cannot add one.
The signature of a part is the schema of its options. Listing imports no part; resolving one imports its module.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from i2vgen_ms.config.data import registry_folder
from i2vgen_ms.config.json_file import read_object
from i2vgen_ms.config.part import PartSpec
from i2vgen_ms.errors import ConfigurationError, UnknownPartError, nearest
from i2vgen_ms.third_party import third_party

OWN = "i2vgen_ms"


# The slots of a configuration's parts, by the last word of their paths.
_SLOTS = {
    "schedule": "schedules",
    "spacing": "spacings",
    "sampler": "samplers",
    "guidance": "guidance",
    "reader": "readers",
    "writer": "writers",
}


@dataclass(frozen=True)
class Entry:
    """One part: where its class or function is (`module:name`), one line about it, which distribution brings it."""

    path: str
    about: str
    provider: str = OWN


def slots() -> list[str]:
    """Names of the slots, sorted."""
    return sorted(file.stem for file in (registry_folder() / "parts").glob("*.json"))


def names(slot: str) -> dict[str, Entry]:
    """The parts of a slot by name: ours in the order of the file, then those of installed packages."""
    return dict(_entries(slot))


@functools.cache
def _entries(slot: str) -> dict[str, Entry]:
    """Read once a process: a call builds a dozen parts, and neither the registry nor the installed packages change."""
    if slot not in slots():
        raise UnknownPartError(f"there is no slot {slot!r}; {nearest(slot, slots())}")
    entries = {
        name: Entry(value["path"], value["about"])
        for name, value in read_object(registry_folder() / "parts" / f"{slot}.json").items()
    }
    for name, path, about, provider in third_party(slot):
        entries.setdefault(name, Entry(path, about, provider))  # a name that exists keeps its meaning
    return entries


def resolve(slot: str, name: str, where: str = "") -> Callable[..., Any]:
    """The class or function of a part. An unknown name raises UnknownPartError, which lists what there is."""
    entries = names(slot)
    prefix = f"{where}.type: " if where else ""
    if name not in entries:
        raise UnknownPartError(f"{prefix}no part {name!r} in the slot {slot!r}; {nearest(name, entries)}")
    entry = entries[name]
    module, _, attribute = entry.path.partition(":")
    try:
        part = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except Exception as error:  # another package's module may raise anything
        raise UnknownPartError(
            f"{prefix}part {name!r} of the slot {slot!r}, brought by {entry.provider}, cannot be imported from "
            f"{entry.path}: {type(error).__name__}: {error}"
        ) from error
    if not callable(part):
        raise UnknownPartError(f"{prefix}part {name!r} of the slot {slot!r}: {entry.path} is not a class or a function")
    return typing.cast(Callable[..., Any], part)


def build(slot: str, spec: PartSpec | Mapping[str, Any], **given: Any) -> Any:
    """An instance of the part that `spec` describes.

    spec: `{"type": name, ...options}`; the options are checked against the constructor's signature, by name and type.
    given: arguments that the caller has made itself (`ops`, another part); they are passed as they are, and replace
        options of the same name.
    For a part that is a function the result is a `functools.partial` of it with the options bound.
    """
    part, keywords, label = _prepare(slot, spec, given)
    needed = [
        name
        for name, parameter in _parameters(part).items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty and name not in keywords
    ]
    if needed:
        raise ConfigurationError(f"{label} needs the option{'s' * (len(needed) > 1)} {', '.join(needed)}; give a value")
    if not isinstance(part, type):
        return functools.partial(part, **keywords)
    try:
        return part(**keywords)
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{label}: {error}") from error


def bind(slot: str, spec: PartSpec | Mapping[str, Any], **given: Any) -> functools.partial[Any]:
    """Like `build`, for a part whose remaining arguments follow later: the class or function with the options bound."""
    part, keywords, _ = _prepare(slot, spec, given)
    return functools.partial(part, **keywords)


def check(parts: Iterable[tuple[str, PartSpec]]) -> None:
    """Raises ConfigurationError unless every part but the networks, given with its dotted path, can be had as it is.

    Networks are built first of all anyway; samplers and writers would be looked for after minutes of work.
    """
    for path, spec in parts:
        slot = _SLOTS.get(path.rpartition(".")[2])
        if slot == "readers":
            bind(slot, spec)  # what it reads follows later
        elif slot is not None:
            build(slot, spec)


def options(slot: str, name: str) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a part, by name."""
    parameters = _parameters(resolve(slot, name))
    return {key: value for key, value in parameters.items() if value.kind is value.KEYWORD_ONLY}


def _prepare(
    slot: str, spec: PartSpec | Mapping[str, Any], given: dict[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any], str]:
    if not isinstance(spec, PartSpec):
        spec = replace(PartSpec.from_json(spec, slot), where="")
    part = resolve(slot, spec.type, spec.where)
    label = f"{spec.where + ': ' if spec.where else ''}part {spec.type!r} of {slot}"
    allowed = {name: p for name, p in _parameters(part).items() if p.kind is p.KEYWORD_ONLY}
    hints = _hints(part, label)
    keywords = dict(given)
    for name, value in spec.options.items():
        if name not in allowed:
            raise ConfigurationError(f"{label}: unknown option {name!r}; {nearest(name, allowed)}")
        if name not in given:
            keywords[name] = _checked(value, hints.get(name, Any), f"{label}: option {name!r}")
    return part, keywords, label


def _hints(part: Callable[..., Any], label: str) -> dict[str, Any]:
    function = part.__init__ if isinstance(part, type) else part  # type: ignore[misc]
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # another package's annotations may be anything
        raise ConfigurationError(f"{label}: its annotations cannot be read: {error}") from error


def _checked(value: Any, hint: Any, label: str) -> Any:
    """The value as the annotation wants it (a JSON list becomes a tuple where one is asked for); strict otherwise."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(strict=True))
    except Exception as error:  # an annotation that JSON cannot express, such as a class of torch
        raise ConfigurationError(f"{label} cannot be given in a configuration: {type(error).__name__}") from None
    try:
        return adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(f"[{key!r}]" for key in first["loc"])
        raise ConfigurationError(f"{label}{path}: {first['msg']}, got {value!r:.80}") from None


def _parameters(part: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(part).parameters
