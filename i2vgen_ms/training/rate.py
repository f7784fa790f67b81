"""How far a run is, and the learning rate there.

Given a run's length, its phases and how its rate goes; it knows neither networks nor optimisers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from i2vgen_ms.training.sections import Length, Phase, Rate


class Clock:
    """Seconds since it was made, and those of earlier processes of the same run before."""

    def __init__(self, before: float = 0.0) -> None:
        self._start = time.monotonic()
        self.before = before

    def seconds(self) -> float:
        """Of the whole run so far."""
        return self.before + time.monotonic() - self._start


def progress(length: Length, step: int, seconds: float) -> float:
    """The share of the run that is over after `step` steps and `seconds`; 1 or more when it is done."""
    shares = [0.0]
    if length.steps is not None:
        shares.append(step / length.steps)
    if length.minutes is not None:
        shares.append(seconds / (60 * length.minutes))
    return max(shares)


def phase_at(phases: Sequence[Phase], share: float) -> tuple[int, float]:
    """The number of the phase at a share of the run, and the share of that phase that is over."""
    begin = 0.0
    for number, phase in enumerate(phases):
        if share < begin + phase.share - 1e-12 or number == len(phases) - 1:
            return number, min(1.0, max(0.0, (share - begin) / phase.share))
        begin += phase.share
    raise AssertionError("there is a last phase")


def factor(rate: Rate, share: float) -> float:
    """The learning rate at a share of its phase, as a factor of the phase's highest.

    It begins at a hundredth of that, because a step of rate 0 would be wasted.
    """
    if share < rate.warm_up:
        return max(0.01, share / rate.warm_up)
    if rate.schedule == "constant":
        return 1.0
    fallen = (share - rate.warm_up) / (1 - rate.warm_up)
    return rate.final + (1 - rate.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))
