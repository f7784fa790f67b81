"""What an evaluation found: a table to read and JSON to keep.

Given numbers by column and metric; computes none.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from i2vgen_ms.errors import OutputError

FORMAT = "i2vgen-ms-evaluation/1"


@dataclass(frozen=True)
class Metric:
    """label: with its unit, for people. better: 'higher', 'lower', or the best value. digits: behind the point."""

    label: str
    better: str
    digits: int


METRICS = {
    "psnr": Metric("PSNR, dB", "higher", 2),
    "ssim": Metric("SSIM", "higher", 4),
    "perceptual_distance": Metric("perceptual distance (MS-GMSD)", "lower", 4),
    "first_frame_psnr": Metric("first frame against the picture, dB", "higher", 2),
    "direction_accuracy": Metric("direction of the motion right", "higher", 3),
    "motion_accuracy": Metric("whole motion right", "higher", 3),
    "place_error": Metric("distance from the true place, heights", "lower", 4),
    "temporal_error": Metric("error of the changes between frames", "lower", 4),
    "flicker": Metric("flicker where nothing moves", "lower", 4),
    "sharpness": Metric("sharpness by the truth's", "1", 3),
    "frechet_distance": Metric("Frechet distance (own classifier)", "lower", 3),
}


@dataclass(frozen=True)
class Report:
    """columns: by name ('model' first) the value of each metric that could be measured. notes: what could not, and why.

    settings: what the videos were made with.
    """

    model: str
    task: str
    clips: int
    settings: Mapping[str, Any]
    columns: Mapping[str, Mapping[str, float]]
    seconds: float
    notes: tuple[str, ...] = field(default=())

    def table(self) -> str:
        """A row a metric, a column each of what was measured."""
        names = [name for name in METRICS if any(name in column for column in self.columns.values())]
        rows = [["", "better", *self.columns]]
        for name in names:
            metric = METRICS[name]
            cells = [_cell(column.get(name, math.nan), metric.digits) for column in self.columns.values()]
            rows.append([metric.label, metric.better, *cells])
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """The whole report; a metric that is not a number is null."""
        columns = {
            name: {metric: value if math.isfinite(value) else None for metric, value in column.items()}
            for name, column in self.columns.items()
        }
        return {
            "format": FORMAT,
            "model": self.model,
            "task": self.task,
            "clips": self.clips,
            "settings": dict(self.settings),
            "seconds": round(self.seconds, 2),
            "columns": columns,
            "notes": list(self.notes),
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON file, whole or not at all. Raises: OutputError."""
        path = Path(path)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            beside.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")
            os.replace(beside, path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise OutputError(f"the report cannot be written to {str(path)!r}: {error}") from error


def _cell(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"
