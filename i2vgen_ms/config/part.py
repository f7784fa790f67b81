"""A part in a configuration: `{"type": name, ...options}`.

Knows the values that options may have at all (bounds.py); whether a part of that name exists and takes those options is
the catalogue's question.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from i2vgen_ms.config.bounds import check_options
from i2vgen_ms.errors import ConfigurationError


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


Part = Annotated[PartSpec, BeforeValidator(_part)]
