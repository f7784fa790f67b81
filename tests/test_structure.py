"""Imports go one way, importing does nothing, and only the plugin and the hub know ModelScope."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "i2vgen_ms"
FILES = sorted(PACKAGE.rglob("*.py"))

# A unit may import units of lower levels and itself; units of one level do not know each other.
LEVELS = (
    {"errors", "cautions"},
    {"tensors"},
    {"config", "third_party", "world"},
    {"media", "encoder", "st_unet", "autoencoder", "diffusion"},
    {"catalogue"},
    {"weights"},
    {"runtime"},
    {"pipelines"},
    {"hub", "demo", "random_model", "service"},
    {"training", "evaluation"},
    {"activation", "app", "serve"},
    {"plugin"},
    {"cli"},
    {"__init__", "__main__"},
)
LEVEL = {unit: level for level, units in enumerate(LEVELS) for unit in units}
KNOWS_MODELSCOPE = {"plugin", "hub"}


def unit_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import statement, also inside functions; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute here"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def forbidden(unit: str, imported: str) -> bool:
    """Whether a file of `unit` must not import the dotted name `imported`."""
    root, _, rest = imported.partition(".")
    if root in ("modelscope", "modelscope_hub"):
        return unit not in KNOWS_MODELSCOPE
    target = rest.partition(".")[0]
    if root != "i2vgen_ms" or target in (unit, "__version__"):
        return False
    return LEVEL[target] >= LEVEL[unit]


def test_every_unit_has_a_level() -> None:
    assert {unit_of(file) for file in FILES} == set(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file: Path) -> None:
    wrong = [f"{file}:{line}: {name}" for line, name in imports(file) if forbidden(unit_of(file), name)]
    assert not wrong


@pytest.mark.parametrize(
    ("unit", "imported", "verdict"),
    [
        ("diffusion", "i2vgen_ms.st_unet.network.SpatioTemporalUNet", True),
        ("config", "i2vgen_ms.catalogue", True),
        ("pipelines", "i2vgen_ms.catalogue", False),
        ("diffusion", "i2vgen_ms.diffusion.spacing", False),
        ("media", "modelscope.hub", True),
        ("plugin", "modelscope.hub", False),
        ("errors", "torch", False),
    ],
)
def test_the_rule_itself(unit: str, imported: str, verdict: bool) -> None:
    assert forbidden(unit, imported) is verdict


def python(code: str) -> str:
    """Both outputs of a fresh interpreter that treats warnings as errors."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_the_package_is_silent_and_light() -> None:
    code = """
import logging, os, random, sys, threading
before = random.getstate(), dict(os.environ), list(logging.root.handlers), threading.active_count()
import i2vgen_ms, i2vgen_ms.errors, i2vgen_ms.activation
assert before == (random.getstate(), dict(os.environ), list(logging.root.handlers), threading.active_count())
heavy = {"torch", "modelscope", "modelscope_hub", "numpy", "pydantic", "requests", "PIL", "av"} & set(sys.modules)
assert not heavy, heavy
"""
    assert python(code) == ""


def test_the_command_lines_help_needs_nothing_heavy() -> None:
    code = """
import argparse, sys
from i2vgen_ms.cli.main import add_commands
add_commands(argparse.ArgumentParser())
heavy = {"torch", "modelscope", "numpy", "pydantic"} & set(sys.modules)
assert not heavy, heavy
"""
    assert python(code) == ""


MODULES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES
}


def needed(file: Path) -> set[str]:
    """Our modules that are imported while this one is (imports inside functions come later)."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    found = set()
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return (found & set(MODULES)) - {"i2vgen_ms"}  # the package's own file is run before any of its modules


def test_no_module_needs_itself() -> None:
    graphlib.TopologicalSorter({name: needed(file) for name, file in MODULES.items()}).prepare()  # or CycleError


def test_every_module_imports_and_needs_no_modelscope() -> None:
    names = [name for name, file in MODULES.items() if unit_of(file) not in ("plugin", "__main__")]
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
known = {{"modelscope", "modelscope_hub"}} & set(sys.modules)
assert not known, known
import torch
assert not torch.cuda.is_initialized()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
