"""Cautions: Python warnings, or told to whoever listens in that thread."""

from __future__ import annotations

import threading

import pytest

from i2vgen_ms.cautions import caution, heard


def test_without_a_listener_python_warns_at_the_right_place() -> None:
    with pytest.warns(UserWarning, match="left out") as caught:
        caution("left out", UserWarning)
    assert caught[0].filename == __file__


def test_a_listener_hears_its_own_thread_and_every_time() -> None:
    told: list[list[str]] = [[], []]
    meet = threading.Barrier(2)

    def work(place: int) -> None:
        with heard(lambda one: told[place].append(f"{type(one).__name__} {one}")):
            meet.wait(10)
            for _ in range(2):
                caution(str(place), UserWarning)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert told == [["UserWarning 0"] * 2, ["UserWarning 1"] * 2]
    with pytest.warns(UserWarning, match="again"):  # nobody listens any more
        caution("again", UserWarning)
