"""Pace: how long the rest of a job takes, from what it took until now and from the jobs before it.

Given phases (a name and an amount of work) and how much of the one at work is done. It does not know what work is.
"""

from __future__ import annotations

from collections.abc import Sequence

Phase = tuple[str, float]
_MEMORY = 0.5  # how much a new measurement counts


class Rates:
    """Seconds for a unit of work in each phase, as the last jobs had it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def learn(self, phase: Phase, seconds: float) -> None:
        """A phase with so much work took so long."""
        name, work = phase
        if work > 0:
            now = seconds / work
            self._seconds[name] = now + (self._seconds.get(name, now) - now) * (1 - _MEMORY)

    def expected(self, phase: Phase) -> float:
        """Seconds that a phase will take; 0 where nothing is known."""
        name, work = phase
        return self._seconds.get(name, 0.0) * work


class Pace:
    """One job's way through its phases."""

    def __init__(self, rates: Rates, phases: Sequence[Phase], now: float) -> None:
        self._rates, self._phases = rates, list(phases)
        self._begun, self._phase_begun, self._last, self._at = now, now, now, 0
        self._share = 0.0
        self._progress = 0.0

    def advance(self, name: str, share: float, now: float) -> None:
        """The phase `name` is done to the share 0 to 1; the phases before it are over."""
        place = next((index for index, (known, _) in enumerate(self._phases) if known == name), None)
        if place is None or place < self._at:
            return
        if place > self._at:
            self._over(self._last)
            self._at, self._phase_begun = place, self._last
        self._share, self._last = share, now

    def finish(self, now: float) -> None:
        """The job is done: its last phase is learnt from too."""
        self._over(now)

    def left(self, now: float) -> float | None:
        """Seconds until the end; None while neither this job nor one before it says anything."""
        if not self._phases:
            return None
        current = self._phases[self._at]
        spent = now - self._phase_begun
        if self._share > 0:
            rest = spent / self._share * (1 - self._share)
        elif self._rates.expected(current) > 0:
            rest = max(0.0, self._rates.expected(current) - spent)
        else:
            return None
        return rest + sum(self._rates.expected(phase) for phase in self._phases[self._at + 1 :])

    def progress(self, now: float) -> float:
        """0 to 1; it never falls."""
        left, spent = self.left(now), now - self._begun
        if left is not None and spent + left > 0:
            self._progress = max(self._progress, min(0.999, spent / (spent + left)))
        return self._progress

    def _over(self, now: float) -> None:
        self._rates.learn(self._phases[self._at], now - self._phase_begun)
