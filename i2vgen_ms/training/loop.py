"""The loop: steps of one run, on one device or on several, from its settings to what it leaves behind.

Given settings. It knows neither networks nor losses: those are the task's. Everything random of a step follows from the
run's seed and the step, so that a run needs no memory of generators to go on, and data need none of their position.
Nothing in a step waits for the device; numbers are read from it every few steps.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2vgen_ms.errors import NonFiniteError, OutputError
from i2vgen_ms.training import assembly, checkpointing, export, rate, state
from i2vgen_ms.training.assembly import Sources
from i2vgen_ms.training.course import Course
from i2vgen_ms.training.data.batch import Batch, Source
from i2vgen_ms.training.data.stream import batches
from i2vgen_ms.training.ema import Average
from i2vgen_ms.training.folder import STATE, begin, goes_on, made
from i2vgen_ms.training.material import Material
from i2vgen_ms.training.meter import Meter
from i2vgen_ms.training.processes import Processes
from i2vgen_ms.training.randomness import Draws, derive
from i2vgen_ms.training.report import Report
from i2vgen_ms.training.settings import Settings


class Trainer:
    """One run.

    Args:
        settings: of the run.
        device: `cpu`, `cuda`, ...; None is the process's CUDA device if there is one.
        resume: go on where the state in the run's folder stands; without it, a folder that holds one is refused.
        progress: whether a bar is shown; None: if standard error is a terminal.
        source: clips to train on and to validate with, instead of those of the settings.
    Raises: ConfigurationError, CheckpointError, OutputError, DeviceError.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        device: str | None = None,
        resume: bool = False,
        progress: bool | None = None,
        source: Source | None = None,
    ) -> None:
        self._clock = rate.Clock()
        self.settings, self.folder = settings, Path(settings.output)
        self._progress, self._resumes = progress, resume
        state_file = self.folder / STATE
        if not resume and state_file.exists():
            raise OutputError(f"{self.folder} holds a run already; go on with resume, or give another output")
        uneven = settings.clips.pictures_every > 0
        self._processes = Processes(settings.numerics, device, uneven=uneven)
        checkpointing.expect_even(settings.checkpointing, processes=self._processes.count, uneven=uneven)
        self.device = self._processes.device
        self._course = Course(settings, rank=self._processes.rank, processes=self._processes.count)
        self.task = assembly.task(settings, self.device)
        self._material = Material(settings, self._course, self.task, source)
        self._parameters = self.task.parameters()
        self._optimiser = _optimiser(settings, self._parameters.values(), self.device)
        self.network, self._stepper = self._processes.prepare(self.task.network, self._optimiser)
        self.average = Average(self._parameters, settings.ema) if settings.ema else None
        self.step = 0
        self._validated = 0
        self._meter = Meter()
        if resume and state_file.exists():
            self._restore(state_file)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self._processes.is_main

    def train(self) -> Path:
        """Trains to the end of the run; returns the folder of what was made: the output's `model` or `lora`.

        Raises: NonFiniteError when the loss is no number any more; what the data and the file system raise.
        """
        settings = self.settings
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._processes.numerics())
            self._material.expect()
            if self._processes.is_main:
                begin(self.folder, settings, self.step if self._resumes else None)
            report = stack.enter_context(
                Report(
                    self.folder if self._processes.is_main else None,
                    tensorboard=settings.log.tensorboard,
                    bar=self._progress,
                    after=self.step if self._resumes else None,
                )
            )
            self._run(report)
            return self._finish(report)

    def evaluate(self) -> dict[str, float]:
        """The numbers of a validation of the network as it is now."""
        sources = self._material.sources(self.settings.data)
        with self._processes.numerics(), self.task.evaluation(self.average):
            return dict(self.task.validate(self._material.held_out(sources, 0), self.settings.seed).numbers)

    def _run(self, report: Report) -> None:
        settings = self.settings
        data, phase = None, -1
        clips: Iterator[Batch] = iter(())
        share = self._share()
        while share < 1:
            now, inside = rate.phase_at(settings.phases, share)
            wanted = settings.phases[now].data or settings.data
            if wanted != data:
                data, sources = wanted, self._material.sources(wanted)
                self._prepare_data(sources, report)
            if now != phase:
                phase, clips = now, self._stream(sources.train)
            height = settings.optimiser.learning_rate * settings.phases[now].rate
            self._set_rate(height * rate.factor(settings.rate, inside))
            self._meter.add(self._one_step(clips, report))
            self.step += 1
            share = self._share()
            report.step(self.step, share)
            if self.step % settings.log.every == 0 or share >= 1:
                self._log(report)
            due = int(share * settings.validation.times)
            if share < 1 and due > self._validated:
                self._validate(report, sources, due)
            if settings.state.every and self.step % settings.state.every == 0:
                self.save()

    def _one_step(self, clips: Iterator[Batch], report: Report) -> dict[str, Tensor]:
        """One step of the optimiser; what is to be logged of it, on the device."""
        settings, accumulation = self.settings, self.settings.batch.accumulation
        values: dict[str, Tensor] = {}
        for turn in range(accumulation):
            batch = next(clips)
            report.skipped(batch.skipped)
            slot = self._course.slot(turn)
            torch.manual_seed(derive(settings.seed, "dropout", self.step, slot))
            draws = Draws.at(self.device, settings.seed, self.step, slot)
            with self._processes.gathering(self.network, last=turn == accumulation - 1):
                loss, parts = self.task.loss(self.network, batch, draws)
                self._processes.backward(loss / accumulation)
            for name, value in {"loss": loss, **parts}.items():
                values[name] = values.get(name, 0) + value.detach() / accumulation
        values["gradient"] = self._processes.clip(self._parameters.values(), settings.optimiser.clip or math.inf)
        self._stepper.step()
        self._stepper.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        return values

    def _stream(self, source: Source) -> Iterator[Batch]:
        """This process's batches from the current step on."""
        return batches(source, self._course.plans(source, self.step), self.device)

    def _share(self) -> float:
        """The share of the run that is over, the same in all processes."""
        length = self.settings.length
        seconds = self._clock.seconds() if length.minutes is not None else 0.0
        return rate.progress(length, self.step, self._processes.agreed(seconds) if seconds else seconds)

    def _set_rate(self, value: float) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = value

    def _log(self, report: Report) -> None:
        self._must_be_finite()
        report.write_down(self._processes.gathered(report.unwritten()))
        values = self._meter.read()
        values["rate"] = self._optimiser.param_groups[0]["lr"]
        if self.device.type == "cuda":
            values["memory GiB"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        values["minutes"] = self._clock.seconds() / 60
        report.numbers("train", self.step, values)

    def _must_be_finite(self) -> None:
        """Raises, in all processes alike, when a loss since the last look or a weight is no finite number."""
        norms = torch._foreach_norm([parameter.detach() for parameter in self._parameters.values()])
        weights = torch.stack([norm.float().to(self.device) for norm in norms]).norm()
        loss = torch.as_tensor(self._meter.total("loss"), device=self.device).float()
        # A sum over the processes is no finite number if it is none in one of them.
        total, size = self._processes.summed(torch.stack([loss, weights])).tolist()
        rest = "or give numerics.train 'bf16' or 'no'; the state that was written last is as it was"
        if not math.isfinite(total):
            raise NonFiniteError(
                f"training: the loss is {total} at step {self.step}; lower optimiser.learning_rate, {rest}"
            )
        if not math.isfinite(size):
            raise NonFiniteError(
                f"training: the weights' norm is {size} at step {self.step}; lower optimiser.learning_rate, {rest}"
            )

    def _validate(self, report: Report, sources: Sources, due: int) -> None:
        self._validated = due
        if self._processes.is_main:
            with self.task.evaluation(self.average):
                shown = self.task.validate(self._material.held_out(sources, 0), self.settings.seed)
            report.numbers("validation", self.step, shown.numbers)
            report.videos(self.step, shown.columns, self.settings.clips.fps[0])
        self._processes.wait()

    def _prepare_data(self, sources: Sources, report: Report) -> None:
        lost = self._material.prepare(sources, rank=self._processes.rank, ranks=self._processes.count)
        # The whole list was looked into by every process; what the cache lacks was shared out among them.
        report.skipped([*sources.skipped, *lost] if self._processes.is_main else lost)
        self._processes.wait()

    def _finish(self, report: Report) -> Path:
        settings = self.settings
        if settings.state.every:
            self.save()
        sources = self._material.sources(settings.data)
        if settings.validation.times:
            self._validate(report, sources, settings.validation.times)
        target = made(self.folder, settings)
        if self._processes.is_main:
            with export.replaced(target) as folder, self.task.evaluation(self.average):
                self.task.export(
                    folder,
                    getattr(torch, settings.export),
                    lambda: (self._material.held_out(sources, number) for number in itertools.count()),
                )
        self._processes.wait()
        return target

    def save(self) -> None:
        """Writes the run's state into its folder.

        Raises: NonFiniteError, and leaves the state that is there, when it would be one that nothing can go on from.
        """
        self._must_be_finite()
        numbers = {
            "step": self.step,
            "seconds": self._clock.seconds(),
            "validated": self._validated,
            "average": self.average.count if self.average is not None else 0,
            "scaler": self._processes.scaler_state(),
            "settings": self.settings.to_json(),
        }
        if self._processes.is_main:
            state.save(self.folder / STATE, numbers, self._parameters, self.average, self._optimiser)
        self._processes.wait()

    def _restore(self, path: Path) -> None:
        numbers = state.numbers_of(path)
        goes_on(self.folder, self.settings, numbers["settings"])
        state.restore(path, self._parameters, self.average, self._optimiser)
        self.step, self._validated = int(numbers["step"]), int(numbers["validated"])
        self._clock.before = float(numbers["seconds"])
        if self.average is not None:
            self.average.count = int(numbers["average"])
        self._processes.restore_scaler(numbers["scaler"])


def _optimiser(settings: Settings, parameters: Any, device: torch.device) -> torch.optim.AdamW:
    wanted = settings.optimiser
    return torch.optim.AdamW(
        list(parameters),
        lr=wanted.learning_rate,
        betas=(wanted.betas[0], wanted.betas[1]),
        eps=wanted.epsilon,
        weight_decay=wanted.weight_decay,
        fused=device.type == "cuda",
    )
