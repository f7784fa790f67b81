"""Bounds for every hostile case, and the table at the end.

A case fails when it takes too long or too much memory, or leaves the process otherwise than it found it. The bounds
are the defaults below; a case that needs others says `@pytest.mark.bounds(seconds=, rss_mib=)`. The table counts what
ran, and nothing else.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.first_stage import cache, folder, picture, pipe  # noqa: F401 - fixtures of every group
from tests.hostile import helpers, state
from tests.hostile.helpers import second  # noqa: F401 - so is this

SECONDS = 60
RSS_MIB = 1536
GROUPS = {
    "A": "hostile checkpoints",
    "A2": "damaged checkpoints",
    "A3": "values of weights",
    "B": "pictures",
    "C": "videos",
    "D": "configuration.json",
    "E": "URLs",
    "F": "output names",
    "G": "faults",
    "H": "concurrency",
    "I": "determinism",
    "J": "non-finite values",
    "K": "overload of the server",
    "L": "hub",
    "fuzz": "random inputs",
}


class TooLong(BaseException):
    """Raised in the midst of a case; nothing that catches errors may catch this one."""


@pytest.fixture(scope="package", autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home, a working folder and one for temporary files that are empty: whatever appears there is seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        for name, variable in (("home", "HOME"), ("temporary", "TMPDIR")):
            patch.setenv(variable, str(tmp_path_factory.mktemp(name)))
        patch.setattr(tempfile, "tempdir", os.environ["TMPDIR"])
        yield


@pytest.fixture(scope="package", autouse=True)
def _warm(_own_places: None) -> Iterator[None]:
    """What the process opens once and keeps (pools, random devices) is there before the first case."""
    helpers.warm_up()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _bounds(request: pytest.FixtureRequest, _warm: None) -> Iterator[None]:
    """Fails the case for time, memory, and anything that is left behind."""
    marker = request.node.get_closest_marker("bounds")
    limits = {"seconds": SECONDS, "rss_mib": RSS_MIB} | (marker.kwargs if marker else {})

    def stop(*_: Any) -> None:
        raise TooLong(f"took more than {limits['seconds']} seconds")

    gc.freeze()  # what is there now stays; looking through it again after every case would take the most time
    before = state.State()
    resident = state.forget_peak()
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limits["seconds"])
    faulthandler.dump_traceback_later(4 * limits["seconds"], exit=True)  # where native code never comes back
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    grown = state.peak_mib() - resident
    problems = state.differences(before)
    if grown > limits["rss_mib"]:
        problems.append(f"resident memory grew by {grown:.0f} MiB, more than {limits['rss_mib']}")
    if problems:
        pytest.fail("left behind:\n  " + "\n  ".join(problems), pytrace=False)


@pytest.fixture
def leaves() -> Callable[..., AbstractContextManager[None]]:
    """`with leaves(folder, 'out.mp4'): ...`: what the block creates below `folder` is exactly that."""
    return helpers.leaves


def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("group")
    if marker is not None:
        assert marker.args[0] in GROUPS, f"{item.nodeid}: no group {marker.args[0]!r}"
        item.user_properties.append(("group", marker.args[0]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table: a case counts as failed if it, its set-up or what it left behind failed; skipped ones do not count."""
    cases: dict[str, dict[str, bool]] = defaultdict(dict)  # group: case: passed
    seconds: dict[str, float] = defaultdict(float)
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            group = dict(getattr(report, "user_properties", ())).get("group")
            if group is None:
                continue
            cases[group][report.nodeid] = cases[group].get(report.nodeid, True) and outcome == "passed"
    for reports in terminalreporter.stats.values():  # set-up and tear-down that passed stand under no outcome
        for report in reports:
            group = dict(getattr(report, "user_properties", ())).get("group")
            if group is not None and report.nodeid in cases[group]:
                seconds[group] += report.duration
    if not any(cases.values()):
        return
    rows = [
        (group, what, len(cases[group]), sum(cases[group].values()), seconds[group])
        for group, what in GROUPS.items()
        if cases.get(group)
    ]
    rows.append(("all", "", *(sum(row[column] for row in rows) for column in (2, 3, 4))))  # type: ignore[misc]
    terminalreporter.section("hostile")
    terminalreporter.write_line(f"{'group':6} {'what':22} {'cases':>6} {'passed':>7} {'failed':>7} {'seconds':>8}")
    for group, what, count, passed, took in rows:
        line = f"{group:6} {what:22} {count:6} {passed:7} {count - passed:7} {took:8.1f}"
        terminalreporter.write_line(line, red=passed < count, green=passed == count)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as Python takes it; a process that a script started in the background ignores it from the beginning."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
