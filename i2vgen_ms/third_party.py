"""Parts that other installed packages bring, read from their entry points without importing them.

An entry point of the group `i2vgen_ms.parts` is named `SLOT.NAME` and names a class or function. The line about it is
the first line of its docstring, taken from the source text. Nothing a package does wrong can break the listing.
"""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

GROUP = "i2vgen_ms.parts"


def third_party(slot: str) -> Iterator[tuple[str, str, str, str]]:
    """(name, path, about, distribution) of every entry point of a slot, sorted by distribution."""
    found = []
    for point in importlib.metadata.entry_points(group=GROUP):
        place, _, name = point.name.partition(".")
        if place == slot and name:
            distribution = point.dist.name if point.dist else "an unnamed distribution"
            found.append((distribution, name, point.value))
    for distribution, name, path in sorted(set(found)):
        yield name, path, _about(path), distribution


def _about(path: str) -> str:
    """The first docstring line of `module:name`, or words that say why there is none."""
    module, _, attribute = path.partition(":")
    try:
        file = _source(module)
        if file is None:
            return f"(module {module} is not installed)"
        for node in ast.parse(file.read_bytes()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
                return (ast.get_docstring(node) or "(no description)").splitlines()[0]
    except (OSError, SyntaxError, ValueError, RecursionError, ImportError) as error:
        return f"(cannot be read: {type(error).__name__})"
    return f"({attribute} is not defined in {module})"


def _source(module: str) -> Path | None:
    """The source file of a module, found without importing its parent packages."""
    places = None
    file = None
    for depth in range(1, len(module.split(".")) + 1):
        spec = PathFinder.find_spec(".".join(module.split(".")[:depth]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
        file = Path(spec.origin) if spec.origin and spec.has_location else None
    return file
