"""What a run tells while it goes: lines of JSON, TensorBoard's events, a bar, and videos of what it makes.

Given the run's folder. Only the main process has one that writes. It knows neither networks nor losses.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.media.frames import to_uint8
from i2vgen_ms.media.writers import open_writer

LOG, SKIPPED, SAMPLES, EVENTS = "log.jsonl", "skipped.jsonl", "samples", "tensorboard"
_GAP = 4  # pixels between the clips of a sheet
_GREY = 0.6


class DataWarning(UserWarning):
    """A file of the data cannot be read and is left out."""


class Report:
    """Used with `with`.

    Args:
        folder: of the run; None writes nothing and shows nothing.
        tensorboard: whether events are written too. bar: whether a bar is shown; None: if standard error is a terminal.
        after: the step that a run goes on from; events of those behind it count no more.
    Raises: ConfigurationError when TensorBoard is wanted and not there.
    """

    def __init__(self, folder: Path | None, *, tensorboard: bool, bar: bool | None, after: int | None = None) -> None:
        self._folder = folder
        self._unwritten: list[tuple[str, str]] = []
        self._writer = _tensorboard(folder / EVENTS, after) if folder is not None and tensorboard else None
        wanted = sys.stderr.isatty() if bar is None else bar
        self._bar: Any = None
        if wanted and folder is not None:
            from tqdm import tqdm

            self._bar = tqdm(total=100.0, bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}")

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def step(self, step: int, share: float) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.set_description(f"step {step}", refresh=False)
            self._bar.update(min(100.0, 100 * share) - self._bar.n)

    def numbers(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers of one kind (`train`, `validation`)."""
        if self._folder is None:
            return
        with (self._folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name.replace(' ', '_')}", value, step)
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in list(values.items())[:3]}, refresh=False)

    def skipped(self, files: Iterable[tuple[str, str]]) -> None:
        """Warns of files that cannot be read, and writes them down, or keeps them for `unwritten`."""
        files = list(files)
        for path, reason in files:
            warnings.warn(f"{path} is left out: {reason}", DataWarning, stacklevel=2)
        if self._folder is None:
            self._unwritten += files
        else:
            self.write_down(files)

    def unwritten(self) -> list[tuple[str, str]]:
        """The files that this process, which writes none, found since it was asked last."""
        found, self._unwritten = self._unwritten, []
        return found

    def write_down(self, files: Iterable[tuple[str, str]]) -> None:
        """Notes files that cannot be read, of which was warned already."""
        if self._folder is not None:
            with (self._folder / SKIPPED).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"path": path, "reason": reason}) + "\n" for path, reason in files)

    def videos(self, step: int, columns: Mapping[str, Tensor], fps: float) -> Path | None:
        """Writes clips `b f h w c` beside each other, a row for each b, a column for each name; returns the file."""
        if self._folder is None or not columns:
            return None
        path = self._folder / SAMPLES / f"step-{step:06d}-{'-'.join(columns)}.mp4"
        path.parent.mkdir(exist_ok=True)
        frames = to_uint8(sheet(list(columns.values())))
        with open_writer(path, width=frames.shape[2], height=frames.shape[1], fps=fps) as writer:
            for frame in frames:
                writer.write(frame)
        return path


def sheet(columns: list[Tensor]) -> Tensor:
    """Clips `b f h w c` in [-1, 1] as one `f H W c`, those of a column below each other; each side is even."""
    padded = [torch.nn.functional.pad(c.float().cpu(), (0, 0, _GAP, _GAP, _GAP, _GAP), value=_GREY) for c in columns]
    return rearrange(padded, "n b f h w c -> f (b h) (n w) c")


def _tensorboard(folder: Path, after: int | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigurationError(
            f"log.tensorboard needs the package tensorboard ({error}); install i2vgen_ms[train], or give false"
        ) from error
    return SummaryWriter(str(folder), purge_step=None if after is None else after + 1)
