"""Which batches each step of a run takes, worked out from the settings and the step alone.

Given the settings and this process's number among those of the run. Nothing of it has to be kept: a run that goes on
after a kill takes the batches that it would have taken.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from i2vgen_ms.training.data.batch import Plan, Source, Spec
from i2vgen_ms.training.randomness import derive
from i2vgen_ms.training.settings import Settings


class Course:
    """The batches of one process of a run. `turn` counts the batches of a step in this process."""

    def __init__(self, settings: Settings, *, rank: int, processes: int) -> None:
        self._settings, self._rank, self._processes = settings, rank, processes

    def slot(self, turn: int) -> int:
        """The number of a batch among those of its step, over all processes."""
        return turn * self._processes + self._rank

    def spec(self, step: int) -> Spec:
        """What the clips of a step have in common, the same for all processes."""
        clips, choose = self._settings.clips, random.Random(derive(self._settings.seed, "spec", step))
        frames, fps = choose.choice(clips.frames), choose.choice(clips.fps)
        width, height = choose.choice(clips.sizes)
        still = bool(clips.pictures_every) and step % clips.pictures_every == clips.pictures_every - 1
        return Spec(1 if still else frames, width, height, fps, still)

    def plans(self, source: Source, first: int) -> Iterator[Plan]:
        """This process's batches from step `first` on, without end."""
        batch, every = self._settings.batch, self._settings.clips.pictures_every
        slots = batch.accumulation * self._processes
        for step in itertools.count(first):
            spec = self.spec(step)
            before = step // every if every else 0
            # batches of pictures and of clips are numbered each for themselves, so that none of either is left out
            number = before if spec.still else step - before
            for turn in range(batch.accumulation):
                yield source.plan(number * slots + self.slot(turn), batch.pictures if spec.still else batch.clips, spec)

    def kinds(self) -> list[Spec]:
        """Every kind of clip that occurs, in every size."""
        clips = self._settings.clips
        frames = [(count, False) for count in clips.frames] + ([(1, True)] if clips.pictures_every else [])
        return [
            Spec(count, width, height, fps, still)
            for count, still in frames
            for fps in clips.fps
            for width, height in clips.sizes
        ]
