"""Turns a pydantic error into one sentence: file, JSON path, what was wrong, with which value, what is known.

pydantic's own errors never leave this package: modelscope re-raises constructor errors from one text, which they do
not survive.
"""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from i2vgen_ms.errors import nearest


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """`source: path: sentence`, one line for each of the first three errors."""
    lines = [f"{source}: {_sentence(item, model)}" for item in error.errors(include_url=False)]
    more = len(lines) - 3
    return "\n".join([*lines[:3], *([f"and {more} more"] if more > 0 else [])])


def _sentence(item: Any, model: type[BaseModel]) -> str:
    loc = tuple(item["loc"]) + tuple(item.get("ctx", {}).get("path", ()))
    path = ".".join(str(key) for key in loc) or "the whole file"
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown key; {nearest(str(loc[-1]), _known(model, loc[:-1]))}"
    if item["type"] == "missing":
        return f"{path}: missing; give a value"
    message = item["msg"][:1].lower() + item["msg"][1:]
    if item["type"] in ("option", "part"):
        return f"{path}: {message}"
    return f"{path}: {message}, got {_shown(item['input'])}"


def _known(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """The keys of the section at `loc`."""
    models = [model]
    for key in map(str, loc):
        holding = [section for section in models if key in section.model_fields]
        # A key that no section has is the number of a list's item, or the tag of one of several classes.
        found = [section for holder in holding for section in _sections(holder.model_fields[key].annotation)]
        models = found if holding else [section for section in models if _tagged(section, key)] or models
    return [name for section in models for name in section.model_fields]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The classes of sections in an annotation such as `Section`, `Section | None` or `list[Section]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


def _tagged(section: type[BaseModel], tag: str) -> bool:
    return any(tag in get_args(field.annotation) for field in section.model_fields.values())


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**64:
        return "an integer beyond 2**64"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
