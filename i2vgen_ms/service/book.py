"""Book: all jobs of a service, those that wait in their order; each is changed under one lock, and never for long.

It does not know how a job is done. Whoever holds `lock` may read and change the jobs.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque

from i2vgen_ms.errors import BusyError, UnknownJobError
from i2vgen_ms.service.job import Job

RECORDS = 1000  # finished jobs that can still be asked about


class Book:
    """Jobs by id, and a queue with room for so many."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self.queue: deque[Job] = deque()
        self.ending = False

    def refuse(self, retry_after: int) -> None:
        """Raises BusyError if a job that came now would be refused."""
        with self.lock:
            if not self.ending and len(self.queue) < self.room:
                return
            words = "the service is ending" if self.ending else f"the queue is full: {self.room} jobs are waiting"
        error = BusyError(f"{words}; try again in {retry_after} seconds")
        error.retry_after = retry_after
        raise error

    def add(self, job: Job, retry_after: int) -> None:
        """Puts a job at the end of the queue, or raises BusyError."""
        with self.lock:
            self.refuse(retry_after)
            self.jobs[job.id] = job
            self.queue.append(job)
            self.changed.notify()

    def take(self) -> Job | None:
        """The next job, as soon as there is one, as a running one; None when the service ends."""
        with self.lock:
            while not self.queue and not self.ending:
                self.changed.wait()
            if not self.queue:
                return None
            job = self.queue.popleft()
            job.state, job.stage, job.started = "running", "starting", time.monotonic()
            return job

    def find(self, key: str) -> Job:
        """The job of an id, or UnknownJobError."""
        with self.lock:
            if key not in self.jobs:
                raise UnknownJobError("there is no job of that id, or not any more")
            return self.jobs[key]

    def waiting(self, job: Job) -> int | None:
        """How many jobs come before it; None if it does not wait."""
        with self.lock:
            return next((place for place, other in enumerate(self.queue) if other is job), None)

    def running(self) -> list[Job]:
        """The jobs that are being done."""
        with self.lock:
            return [job for job in self.jobs.values() if job.state == "running"]

    def forget(self) -> None:
        """Drops the oldest finished jobs that are too many; those that still have a file are kept."""
        with self.lock:
            spare = [job.id for job in self.jobs.values() if job.ended is not None and job.path is None]
            for key in spare[: max(0, len(spare) - RECORDS)]:
                del self.jobs[key]
