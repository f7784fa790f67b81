"""examples/own_sampler: it has the order that it says, and the options and the call that the catalogue wants."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import sys
import tomllib
from typing import Any

import pytest
import torch

from i2vgen_ms import catalogue
from i2vgen_ms.diffusion.samplers.euler import Euler
from i2vgen_ms.diffusion.samplers.heun import Heun
from tests.diffusion.samplers.test_order import SPREAD, STEPS, marginal_errors
from tests.examples.conftest import EXAMPLES

FOLDER = EXAMPLES / "own_sampler"


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class, found through its line of pyproject.toml as an installed one is."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "own_sampler", raising=False)
    points = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"]["i2vgen_ms.parts"]
    ((place, path),) = points.items()
    slot, name = place.split(".")
    entries = {**catalogue.names(slot), name: catalogue.Entry(path, "an example", "own-sampler")}
    monkeypatch.setattr(catalogue, "_entries", lambda asked: entries)
    importlib.invalidate_caches()
    return slot, name


def test_it_converges_with_the_order_that_it_says(named: Any) -> None:
    slot, name = named
    sampler = catalogue.build(slot, {"type": name})
    (mean, coarse), (_, fine) = (marginal_errors(sampler, steps) for steps in STEPS)
    assert mean < 1e-12
    assert math.log2(coarse / fine) == pytest.approx(sampler.order, abs=0.1)
    forgetful = catalogue.build(slot, {"type": name, "memory": 0.0})
    assert marginal_errors(forgetful, 20)[1] == pytest.approx(marginal_errors(Euler(), 20)[1], rel=1e-9)


def test_it_starts_from_infinite_noise_and_is_called_as_the_others(named: Any) -> None:
    slot, name = named
    part = catalogue.resolve(slot, name)
    assert list(inspect.signature(part.__call__).parameters) == list(inspect.signature(Heun.__call__).parameters)
    x, target = torch.ones(2, 3), torch.full((2, 3), SPREAD)
    steps = list(part()(lambda x, sigma: target, x, [math.inf, 5.0, 1.0, 0.0], None))
    assert [(step.index, step.steps, step.sigma) for step in steps] == [(0, 3, 5.0), (1, 3, 1.0), (2, 3, 0.0)]
    torch.testing.assert_close(steps[-1].x, target)
    torch.testing.assert_close(steps[0].x, (target + 5 * x) / math.hypot(1, 5))


def test_the_shortest_sampler_of_the_documentation_is_euler() -> None:
    text = (EXAMPLES.parent / "docs" / "parts.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], names)
    assert marginal_errors(names["Euler"](), 20)[1] == pytest.approx(marginal_errors(Euler(), 20)[1], rel=1e-9)
