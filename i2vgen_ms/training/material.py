"""The clips of a run: to train on and to validate with, of each phase, and what has to be known of them beforehand.

Given the settings, the task and which kinds of clips occur. It knows no steps.
"""

from __future__ import annotations

from typing import Any

from i2vgen_ms.training import assembly
from i2vgen_ms.training.assembly import Sources
from i2vgen_ms.training.course import Course
from i2vgen_ms.training.data.batch import Batch, Plan, Source
from i2vgen_ms.training.data.files import FileSource
from i2vgen_ms.training.sections import FileData
from i2vgen_ms.training.settings import Settings
from i2vgen_ms.training.task import Task


class Material:
    """The sources of one run.

    given: clips to train on and to validate with, instead of those of the settings.
    """

    def __init__(self, settings: Settings, course: Course, task: Task, given: Source | None) -> None:
        self._settings, self._task, self._given = settings, task, given
        self._kinds = course.kinds()
        self._opened: list[tuple[FileData, Sources]] = []

    def sources(self, data: Any) -> Sources:
        """The sources of a `data` section; files are looked into once a run. Raises: ConfigurationError."""
        if self._given is not None:
            return Sources(self._given, self._given)
        for known, opened in self._opened:
            if known == data:
                return opened
        made = assembly.sources(self._settings, data, self._task)
        if isinstance(data, FileData):
            self._opened.append((data, made))
        return made

    def expect(self) -> None:
        """Raises: ConfigurationError, if no file of some phase's data holds a clip that the run may come to there."""
        settings = self._settings
        trained = [phase.data or settings.data for phase in settings.phases]
        for data in (settings.data, *trained):  # the last validation is always on the run's own data
            if isinstance(data, FileData):
                sources = self.sources(data)
                if data in trained and isinstance(sources.train, FileSource):
                    sources.train.expect(self._kinds)
                if settings.validation.times:
                    self._plan(sources, 0)

    def prepare(self, sources: Sources, *, rank: int, ranks: int) -> list[tuple[str, str]]:
        """Makes the latents that sources keep; (path, reason) of files that turned out to be unreadable."""
        return assembly.fill_cache(sources.train, self._kinds, self._task, rank=rank, ranks=ranks)

    def held_out(self, sources: Sources, number: int) -> Batch:
        """A batch for validation."""
        source = sources.held_out
        return source.finish(source.prepare(self._plan(sources, number)), self._task.device)

    def _plan(self, sources: Sources, number: int) -> Plan:
        return sources.held_out.plan(number, self._settings.validation.clips, self._kinds[0])
