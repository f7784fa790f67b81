"""Recipe: all that decided a video, as commands and as a script that make it again.

Given what a call was given; it computes nothing and asks nobody.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from i2vgen_ms.config.data import BUNDLED
from i2vgen_ms.service.job import FIRST, SECOND


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A stage's model as it is asked for, and how it was loaded (device, dtype, lora, ...; None is left out)."""

    model: str
    revision: str | None = None
    loading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, Any]:
        """What loading was told."""
        return {name: value for name, value in self.loading.items() if value is not None}

    def without_folders(self) -> Origin:
        """The same with the names alone of what lies on this machine, which strangers are told."""
        loading = {name: _name(value) if name == "lora" else value for name, value in self.loading.items()}
        return replace(self, model=_name(self.model), loading=loading)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One video.

    source: the name of the picture's file, or of the first stage's video. sample: the bundled picture of that name.
    output: the name of the video. arguments: of the call, beside the seed and the text.
    before: how the first stage's video was made, for a video of the second.
    """

    task: str
    origin: Origin
    source: str
    output: str
    seed: int
    arguments: Mapping[str, Any]
    text: str | None = None
    sample: str | None = None
    before: Recipe | None = None


def commands(recipe: Recipe) -> list[list[str]]:
    """The command lines that make the video again, each as a list of words."""
    lines = [] if recipe.before is None else commands(recipe.before)
    if recipe.sample is not None:
        copy = f"shutil.copy({_picture(recipe)}, {_quoted(recipe.source)})"
        code = f"import shutil; from i2vgen_ms.demo import sample; {copy}"
        lines.append(["python", "-c", code])
    line = ["i2vgen-ms", recipe.task, _named(recipe.source), "-o", recipe.output, "--model", recipe.origin.model]
    if recipe.origin.revision is not None:
        line += ["--revision", recipe.origin.revision]
    values = {**recipe.origin.given, "seed": recipe.seed, **recipe.arguments}
    if recipe.task == SECOND:
        values["text"] = recipe.text or ""
    for name, value in values.items():
        # One word with its value, so that a text may begin with a dash.
        option = f"--{name.replace('_', '-')}"
        line.append(option if value is True else f"{option}={value}")
    return [*lines, line]


def command(recipe: Recipe) -> str:
    """The commands for a shell, one a line."""
    return "\n".join(shlex.join(line) for line in commands(recipe))


def script(recipe: Recipe) -> str:
    """The same in Python."""
    chain = [one for one in (recipe.before, recipe) if one is not None]
    imports = ["from i2vgen_ms import load"]
    if any(one.sample is not None for one in chain):
        imports.append("from i2vgen_ms.demo import sample")
    if any(not _bundled(one.origin) for one in chain):
        imports.append("from i2vgen_ms.hub import resolve")
    lines = [*imports, ""]
    for one in chain:
        name = "first" if one.task == FIRST else "second"
        place = repr(one.origin.model)
        if not _bundled(one.origin):
            place = f"resolve({place}{_more({'revision': one.origin.revision})})"
        lines.append(f"{name} = load({place}{_more(one.origin.given)})")
        source = repr(one.source) if one.sample is None else _picture(one)
        text = {} if one.task == FIRST else {"text": one.text or ""}
        values = _more({"output": one.output, **text, "seed": one.seed, **one.arguments})
        lines.append(f"{name}({source}{values})")
    return "\n".join(lines) + "\n"


def _name(model: Any) -> Any:
    """The last part of the name of a file or folder; an id of the hub, or None, as it is."""
    return Path(model).name if model is not None and Path(model).exists() else model


def _picture(recipe: Recipe) -> str:
    return f"sample({_quoted(recipe.sample or '')}).path"


def _quoted(name: str) -> str:
    """As Python reads it, in double quotes, which a shell's single ones may hold."""
    return json.dumps(name)


def _bundled(origin: Origin) -> bool:
    return origin.model.startswith(f"{BUNDLED}/")


def _more(values: Mapping[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in values.items() if value is not None)


def _named(file: str) -> str:
    """A file's name that no parser takes for an option."""
    return f"./{file}" if file.startswith("-") else file
