"""Service: takes requests, has a worker thread a device do them, keeps the results for a while.

Given the models of each worker and how it works. Every method may be called from any thread, returns at once, and
never waits for a pipeline, except `close`. It knows nothing of how requests come in.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2vgen_ms.errors import ArgumentError, BusyError, GoneError, NotDoneError, WaitError
from i2vgen_ms.service.book import Book
from i2vgen_ms.service.failure import failure_of, type_of
from i2vgen_ms.service.job import Failure, Job, Request, Status
from i2vgen_ms.service.limits import ServiceSettings
from i2vgen_ms.service.models import Models
from i2vgen_ms.service.store import Store
from i2vgen_ms.service.worker import Worker

logger = logging.getLogger("i2vgen_ms")
TICK = 0.5  # seconds between two looks of the keeper
JOIN_SECONDS = 10.0  # for a step that is being done when everything ends

Listener = Callable[[str, str, str, Status | None], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How a service stands: jobs that wait, of how many; the state of each worker; whether it takes no more jobs."""

    queued: int
    room: int
    workers: tuple[tuple[str, str], ...]  # device, and idle, busy, failing or dead
    ending: bool

    @property
    def healthy(self) -> bool:
        """Whether a job that comes now will be done in its turn."""
        return not self.ending and any(state in ("idle", "busy") for _, state in self.workers)


class Service:
    """Jobs for workers, each with models of its own that do the same kinds.

    Args:
        workers: the loaded models of each.
        settings: see ServiceSettings.
        listener: told of ('taken', kind, ''), ('refused', kind, why) and ('finished', kind, state), with the Status
            that the job ended with; from any thread, and it must be quick.
    """

    def __init__(
        self, workers: Sequence[Models], settings: ServiceSettings | None = None, listener: Listener | None = None
    ) -> None:
        if not workers or any(models.kinds != workers[0].kinds for models in workers):
            raise ArgumentError("a service needs workers that do the same kinds of jobs")
        self.settings = settings or ServiceSettings()
        self.models, self.kinds = workers[0], workers[0].kinds
        self.listener = listener
        self._book = Book(self.settings.queue)
        self._store = Store(self.settings.folder)
        self._hidden = [self._store.folder, *(folder for models in workers for folder in models.folders())]
        self._workers = [Worker(models, self._book, self.settings, self._ended, self._path) for models in workers]
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="i2vgen-ms keeper", daemon=True)
        for worker in self._workers:
            worker.start()
        self._keeper.start()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refuse(self, kind: str = "") -> None:
        """Raises BusyError if a request that came now would be refused: before it is read, for instance."""
        try:
            self._book.refuse(self._retry_after())
        except BusyError:
            self._tell("refused", kind, "ending" if self._book.ending else "full")
            raise

    def submit(self, request: Request) -> Status:
        """Puts a request at the end of the queue.

        Raises: BusyError, and what Models.check raises.
        """
        try:
            self.models.check(request, self.settings.limits)
        except Exception as error:
            self._tell("refused", request.kind if request.kind in self.kinds else "", type_of(error))
            raise
        job = Job(request, request.kind, time.monotonic())
        try:
            self._book.add(job, self._retry_after())
        except BusyError:
            self._tell("refused", job.kind, "ending" if self._book.ending else "full")
            raise
        self._tell("taken", job.kind)
        return self.status(job.id)

    def status(self, key: str) -> Status:
        """How a job stands. Raises: UnknownJobError."""
        with self._book.lock:
            job = self._book.find(key)
            return job.status(time.monotonic(), self._book.waiting(job))

    def result(self, key: str) -> Path:
        """The file of a job that is done; copy it before it is too old.

        Raises: UnknownJobError; NotDoneError; GoneError for a job that failed or was cancelled, and for a file that
            was removed.
        """
        with self._book.lock:
            job = self._book.find(key)
            if job.path is not None:
                return job.path
            if job.ended is None:
                raise NotDoneError(f"the job is {job.state}; ask for its status")
            gone = "its result was kept for a while, and is removed" if job.state == "done" else "there is no result"
            raise GoneError(f"the job is {job.state}: {gone}")

    def cancel(self, key: str) -> Status:
        """Stops a job: one that waits at once, one that runs after the step it is at. Of a finished one, which stays
        as it is, the file is removed. Raises: UnknownJobError."""
        with self._book.lock:
            job = self._book.find(key)
            if job.state == "queued":
                self._book.queue.remove(job)
                self._finish(job, "cancelled")
            elif job.state == "running":
                job.cancelled = True
            else:
                self._drop(job)
        return self.status(key)

    def stats(self) -> Stats:
        """How the service stands."""
        with self._book.lock:
            workers = tuple((worker.models.device, worker.state) for worker in self._workers)
            return Stats(queued=len(self._book.queue), room=self._book.room, workers=workers, ending=self._book.ending)

    def drain(self) -> None:
        """Takes no more jobs, and cancels those that wait; what runs goes on, and results can be fetched."""
        with self._book.lock:
            self._book.ending = True
            while self._book.queue:
                self._finish(self._book.queue.popleft(), "cancelled", Failure("busy", "the service is ending"))
            self._book.changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Waits until nothing runs, or so long; says whether nothing does."""
        end = time.monotonic() + seconds
        while self._book.running():
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        return True

    def close(self, grace: float = 0.0) -> None:
        """Ends: drains, waits `grace` seconds for what runs, cancels that, and removes all files."""
        self.drain()
        self.wait(grace)
        with self._book.lock:
            for job in self._book.jobs.values():
                job.cancelled = True
        self._over.set()
        end = time.monotonic() + JOIN_SECONDS
        for thread in (*(worker.thread for worker in self._workers), self._keeper):
            thread.join(max(0.0, end - time.monotonic()))
        self._store.close()

    def _retry_after(self) -> int:
        """Seconds until a place in the queue is likely to be free."""
        known = [job.seconds_left for job in self._book.running() if job.seconds_left is not None]
        return round(min(600, max(1, min(known)))) if known else BusyError.retry_after

    def _path(self, job: Job) -> Path:
        return self._store.path(f"{job.id}.mp4")

    def _ended(self, job: Job, state: str, error: BaseException | None = None) -> None:
        """A worker is through with a job."""
        if error is not None and state == "failed" and type_of(error) == "internal":
            logger.error("job %s failed", job.id, exc_info=error)
        failure = None if error is None or state != "failed" else failure_of(error, self._hidden)
        with self._book.lock:
            if job.ended is not None:
                return
            job.path = self._path(job) if state == "done" else None
            if job.cancelled:
                state, failure = "cancelled", None
                self._drop(job)
            job.size = None if job.path is None else os.path.getsize(job.path)
            self._finish(job, state, failure)

    def _finish(self, job: Job, state: str, failure: Failure | None = None) -> None:
        now = time.monotonic()
        job.end(state, now, failure)
        self._book.forget()
        self._tell("finished", job.kind, state, job.status(now, None))

    def _drop(self, job: Job) -> None:
        if job.path is not None:
            self._store.remove(job.path)
        job.path = job.size = None

    def _keep(self) -> None:
        """What nobody else looks after: jobs that waited too long, results that are too old, threads that died."""
        while not self._over.wait(TICK):
            now = time.monotonic()
            with self._book.lock:
                for job in [job for job in self._book.queue if now - job.created > self.settings.wait_seconds]:
                    self._book.queue.remove(job)
                    words = f"waited {now - job.created:.0f} seconds in the queue without being started"
                    self._finish(job, "failed", failure_of(WaitError(words)))
                kept = [job for job in self._book.jobs.values() if job.path is not None]
                kept.sort(key=lambda job: job.ended or 0.0)
                for place, job in enumerate(kept):
                    too_many = len(kept) - place > self.settings.keep_results
                    if too_many or now - (job.ended or now) > self.settings.keep_seconds:
                        self._drop(job)
            for worker in self._workers:
                worker.revive()

    def _tell(self, what: str, kind: str, why: str = "", status: Status | None = None) -> None:
        if self.listener is not None:
            self.listener(what, kind, why, status)
