"""Timing: two or more ways to do the same, interleaved in one process, as rows of a table with their ratios.

Given functions without arguments. It does not know what they compute; how exact they are is told it as a Gate.
"""

from __future__ import annotations

import importlib.util
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

# What may differ where nothing but the order of additions does, relative L2 in fp32.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Gate:
    """How far our result and the published one are from the published network's in fp32, relative L2.

    rounding: what our result may differ by at any rate; 0 where it has to be the same bits.
    """

    ours: float
    published: float
    rounding: float = ROUNDING

    @property
    def limit(self) -> float:
        return max(self.published, self.rounding)

    @property
    def ok(self) -> bool:
        """False for NaN too."""
        return self.ours <= self.limit

    def to_json(self) -> dict[str, Any]:
        return {"ours": self.ours, "published": self.published, "limit": self.limit, "ok": self.ok}


@dataclass(frozen=True)
class Row:
    """One line: what was measured of ours and of `base`, in `unit`; the less, the better."""

    name: str
    base: str
    theirs: list[float]
    ours: list[float]
    unit: str = "s"
    gate: Gate | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many times less ours is, by the medians; None where one side has nothing."""
        if not self.theirs or not self.ours or not statistics.median(self.ours):
            return None
        return statistics.median(self.theirs) / statistics.median(self.ours)

    def to_json(self) -> dict[str, Any]:
        return {
            "row": self.name,
            "unit": self.unit,
            "base": self.base,
            "theirs": summary(self.theirs),
            "ours": summary(self.ours),
            "ratio": self.ratio,
            "gate": self.gate and self.gate.to_json(),
            "notes": self.notes,
        }

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:6.2f}x"
        gate = ""
        if self.gate:
            gate = f"  {self.gate.ours:.1e} <= {self.gate.limit:.1e} {'ok' if self.gate.ok else 'NOT EXACT'}"
        notes = "".join(f"  {key}: {_number(value)}" for key, value in self.notes.items())
        return f"{self.name:44}{self.base:>10}{_span(self.theirs)}{_span(self.ours)}{ratio:>8}{gate}{notes}"


HEADER = (
    f"{'row':44}{'beside':>10}{'theirs: median (min-max)':>28}{'ours: median (min-max)':>28}{'ratio':>8}  gate, notes"
)


def summary(values: list[float]) -> dict[str, Any] | None:
    """Median, least, most, and the values themselves."""
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": values}


def _span(values: list[float]) -> str:
    text = f"{_number(statistics.median(values))} ({_number(min(values))}-{_number(max(values))})" if values else "-"
    return f"{text:>28}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """How long one call takes: by the device's events, on the CPU by the clock."""
    if device.type != "cuda":
        started = time.perf_counter()
        function()
        return time.perf_counter() - started
    # Events are those of the current device, whichever one computes.
    with torch.cuda.device(device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000


def interleaved(
    sides: Mapping[str, Callable[[], object]],
    *,
    repeat: int,
    device: torch.device,
    warm: int = 1,
    measure: Callable[[Callable[[], object], torch.device], float] = seconds,
) -> dict[str, list[float]]:
    """What each side takes, `repeat` times, in the order A B B A A B; all are called `warm` times before."""
    for _ in range(warm):
        for function in sides.values():
            function()
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeat):
        for name in list(sides) if turn % 2 == 0 else reversed(list(sides)):
            taken[name].append(measure(sides[name], device))
    return taken


def versions(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on and a reader cannot see in them."""
    import i2vgen_ms

    found: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads",
        "i2vgen_ms": i2vgen_ms.__version__,
        "commit": _commit(),
    }
    if (published := _modelscope()) is not None:
        found["modelscope"] = published
    with suppress(ImportError):
        import triton

        found["triton"] = triton.__version__
    if device.type == "cuda":
        found |= _driver()
    return found


def _commit() -> str | None:
    place = Path(__file__).resolve().parent
    done = _output(["git", "-C", str(place), "describe", "--always", "--dirty", "--abbrev=12"])
    return done or None


def _modelscope() -> str | None:
    """The version of the modelscope that is found here, installed or copied, without importing it."""
    spec = importlib.util.find_spec("modelscope")
    file = spec and spec.origin and Path(spec.origin).with_name("version.py")
    if not file or not file.is_file():
        return None
    said = re.search(r"__version__ = ['\"](.+?)['\"]", file.read_text(encoding="utf-8"))
    return said and said[1]


def _driver() -> dict[str, str]:
    names = ["driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit"]
    text = _output(["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader", "--id=0"])
    return dict(zip(names, (part.strip() for part in text.split(",")), strict=False)) if text else {}


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative L2 distance, in fp64 on the tensors' device."""
    difference = (ours.double() - theirs.double()).norm()
    return float(difference / theirs.double().norm())


def failed(rows: Iterable[Row]) -> list[str]:
    """The names of the rows whose results are not exact."""
    return [row.name for row in rows if row.gate is not None and not row.gate.ok]
