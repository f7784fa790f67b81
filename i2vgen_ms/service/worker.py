"""Worker: one thread that does jobs with its own models, one after another, and survives whatever they raise.

Given the book to take jobs from, and what to tell when one has ended. It does not know who asked for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from i2vgen_ms.cautions import heard
from i2vgen_ms.errors import Cancelled, I2VGenError, NonFiniteError, OutOfMemoryError
from i2vgen_ms.pipelines import Progress
from i2vgen_ms.service.book import Book
from i2vgen_ms.service.failure import warning_of
from i2vgen_ms.service.job import Job, Preview, Request
from i2vgen_ms.service.limits import ServiceSettings
from i2vgen_ms.service.models import Models
from i2vgen_ms.service.pace import Pace, Rates

FAILING = 3  # jobs in a row that failed without a reason of their own: something is wrong with the device


class Worker:
    """Does the jobs of a book with `models`; `ended(job, state, error)` is called once for each, `path` says where its
    file goes."""

    def __init__(
        self,
        models: Models,
        book: Book,
        settings: ServiceSettings,
        ended: Callable[..., None],
        path: Callable[[Job], Path],
    ) -> None:
        self.models = models
        self.job: Job | None = None
        self._book, self._settings, self._ended, self._path = book, settings, ended, path
        self._rates = Rates()
        self._unexplained = 0
        self.thread = self._new_thread()

    @property
    def state(self) -> str:
        """idle, busy, failing or dead."""
        if not self.thread.is_alive():
            return "dead"
        if self._unexplained >= FAILING:
            return "failing"
        return "idle" if self.job is None else "busy"

    def start(self) -> None:
        """Begins to take jobs."""
        self.thread.start()

    def revive(self) -> None:
        """If the thread died: its job has failed, and another thread takes over."""
        if self.thread.is_alive() or self._book.ending:
            return
        if self.job is not None:
            self._ended(self.job, "failed", RuntimeError("the worker's thread died"))
            self.job = None
        self.thread = self._new_thread()
        self.thread.start()

    def _new_thread(self) -> threading.Thread:
        # A daemon: a step that takes minutes must not keep the process from ending.
        return threading.Thread(target=self._work, name=f"i2vgen-ms worker {self.models.device}", daemon=True)

    def _work(self) -> None:
        while (job := self._book.take()) is not None:
            self.job = job
            state, error = self._do(job)
            self._unexplained = 0 if state != "failed" or isinstance(error, I2VGenError) else self._unexplained + 1
            self._ended(job, state, error)
            self.job = None
            if error is not None and not isinstance(error, Exception):
                return  # the thread was told to end; the keeper starts another
            del error  # it holds every tensor that was in use

    def _do(self, job: Job) -> tuple[str, BaseException | None]:
        request, now = job.request, time.monotonic()
        try:
            assert request is not None  # until it is ended
            phases = self.models.check(request, self._settings.limits)
            run = _Run(job, request, Pace(self._rates, phases, now), self._book, self._settings, self.models.folders())
            with heard(run.warn):
                result = self.models.make(request, self._path(job), run.report)
            run.pace.finish(time.monotonic())
        except Cancelled as error:
            return "cancelled", error
        except BaseException as error:
            return "failed", error
        with self._book.lock:
            job.seed = result.seed
        return "done", None


class _Run:
    """What a running job's progress does to it."""

    def __init__(
        self, job: Job, request: Request, pace: Pace, book: Book, settings: ServiceSettings, hidden: Sequence[Path]
    ) -> None:
        self._job, self._request, self.pace, self._book, self._settings = job, request, pace, book, settings
        self._hidden = hidden
        self._next_preview = 0.0 if request.preview else float("inf")

    def report(self, task: str, event: Progress) -> bool:
        """Writes down an event; False cancels the job."""
        now = time.monotonic()
        self.pace.advance(f"{task} {event.stage}", event.step / event.total, now)
        left, progress = self.pace.left(now), self.pace.progress(now)
        with self._book.lock:
            job = self._job
            job.part, job.stage, job.step, job.steps = task, event.stage, event.step, event.total
            job.seconds_left, job.progress = left, progress
            cancelled = job.cancelled
        if not cancelled and event.latents is not None and now >= self._next_preview:
            self._look(task, event)
        return not cancelled

    def warn(self, warning: Warning) -> None:
        """Writes down what the maker of the video warns of; the same thing once."""
        said = warning_of(warning, self._hidden)
        with self._book.lock:
            if said not in self._job.warnings:
                self._job.warnings = (*self._job.warnings, said)

    def _look(self, task: str, event: Progress) -> None:
        settings, begun = self._settings, time.monotonic()
        try:
            frames: Any = event.preview(settings.preview_frames, settings.preview_side)
        except (OutOfMemoryError, NonFiniteError):
            self._next_preview = float("inf")  # there is no room for it, or nothing to see: the job goes on without
            return
        end = time.monotonic()
        self._next_preview = end + max(settings.preview_seconds, (end - begun) / settings.preview_share)
        with self._book.lock:
            number = 1 if self._job.preview is None else self._job.preview.number + 1
            self._job.preview = Preview(number, task, event.step, frames)
