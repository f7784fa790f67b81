"""How far a run is, and the learning rate there."""

from __future__ import annotations

import math

import pytest

from i2vgen_ms.training import rate
from i2vgen_ms.training.sections import Length, Phase, Rate

PHASES = [Phase(share=0.75, rate=1.0, data=None), Phase(share=0.25, rate=0.1, data=None)]


def test_the_run_is_as_far_as_the_further_of_steps_and_minutes() -> None:
    both = Length(steps=10, minutes=2.0)
    assert rate.progress(both, 5, 0.0) == 0.5
    assert rate.progress(both, 5, 90.0) == 0.75
    assert rate.progress(Length(steps=None, minutes=2.0), 10**6, 30.0) == 0.25
    assert rate.progress(Length(steps=10, minutes=None), 2, 1e9) == 0.2


def test_phases_follow_each_other() -> None:
    assert rate.phase_at(PHASES, 0.0) == (0, 0.0)
    assert rate.phase_at(PHASES, 0.375) == (0, 0.5)
    assert rate.phase_at(PHASES, 0.75) == (1, 0.0)
    assert rate.phase_at(PHASES, 0.875) == (1, 0.5)
    assert rate.phase_at(PHASES, 1.5) == (1, 1.0)
    thirds = [Phase(share=1 / 3, rate=1.0, data=None)] * 3
    assert [rate.phase_at(thirds, step / 9)[0] for step in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_cosine_falls_from_one_to_its_final_share() -> None:
    cosine = Rate(schedule="cosine", warm_up=0.2, final=0.1)
    assert rate.factor(cosine, 0.0) == 0.01
    assert rate.factor(cosine, 0.1) == pytest.approx(0.5)
    assert rate.factor(cosine, 0.2) == pytest.approx(1.0)
    assert rate.factor(cosine, 0.6) == pytest.approx(0.55)
    assert rate.factor(cosine, 1.0) == pytest.approx(0.1)
    expected = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.25))
    assert rate.factor(cosine, 0.4) == pytest.approx(expected)


def test_the_constant_stays() -> None:
    constant = Rate(schedule="constant", warm_up=0.1, final=0.0)
    assert [rate.factor(constant, share) for share in (0.1, 0.5, 1.0)] == [1.0, 1.0, 1.0]


def test_the_clock_goes_on_where_an_earlier_process_stopped() -> None:
    clock = rate.Clock()
    assert 0 <= clock.seconds() < 5
    clock.before = 100.0
    assert 100 <= clock.seconds() < 105
