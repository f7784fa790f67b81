"""Threads beside their caller: order, bounds, the same errors, and no thread that outlives its block."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from i2vgen_ms.runtime.beside import Behind, ahead


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_everything_is_done_in_order_elsewhere() -> None:
    done, places = [], set()

    def work(item: int) -> None:
        time.sleep(0.001)
        done.append(item)
        places.add(threading.get_ident())

    with Behind(work) as behind:
        for item in range(20):
            behind.give(item)
    assert done == list(range(20))
    assert len(places) == 1
    assert threading.get_ident() not in places


def test_the_caller_is_never_far_ahead() -> None:
    done: list[int] = []
    gate = threading.Semaphore(0)

    def work(item: int) -> None:
        gate.acquire()
        done.append(item)

    given: list[int] = []

    def feed() -> None:
        with Behind(work, waiting=2) as behind:
            for item in range(6):
                behind.give(item)
                given.append(item)

    feeder = threading.Thread(target=feed)
    feeder.start()
    for _ in range(6):
        time.sleep(0.05)
        assert len(given) <= len(done) + 2
        gate.release()
    feeder.join()
    assert done == list(range(6))


@pytest.mark.parametrize("last", [False, True])
def test_an_error_reaches_the_caller_as_it_is(last: bool) -> None:
    done: list[int] = []
    wrong = OSError(28, "No space left on device")

    def work(item: int) -> None:
        if item == 2:
            raise wrong
        done.append(item)

    def run() -> None:
        with Behind(work) as behind:
            for item in range(3 if last else 100):
                behind.give(item)

    with pytest.raises(OSError, match="No space left") as caught:
        run()
    assert caught.value is wrong
    assert done == [0, 1]


def test_what_has_not_begun_is_left_out_when_the_block_fails() -> None:
    done, begun = [], threading.Event()

    def work(item: int) -> None:
        begun.set()
        time.sleep(0.1)
        done.append(item)

    def run() -> None:
        with Behind(work, waiting=5) as behind:
            for item in range(4):
                behind.give(item)
            begun.wait()
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        run()
    assert done == [0]


def test_a_second_interrupt_waits_for_the_item_in_hand() -> None:
    done, begun = [], threading.Event()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def work(item: int) -> None:
        begun.set()
        time.sleep(0.3)
        done.append(item)

    def interrupt() -> None:
        begun.wait()
        for _ in range(2):
            time.sleep(0.05)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def run() -> None:
        with Behind(work, waiting=5) as behind:
            for item in range(5):
                behind.give(item)
            begun.wait()
            time.sleep(5)

    fingers = threading.Thread(target=interrupt)
    fingers.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run()
        assert done == [0]
    finally:
        signal.signal(signal.SIGINT, before)
        fingers.join()


@pytest.mark.parametrize("threaded", [False, True])
def test_items_are_made_ahead(threaded: bool) -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(5):
            made.append(item)
            yield item

    with ahead(items(), threaded=threaded) as coming:
        first = next(coming)
        time.sleep(0.1)
        assert (first, made) == (0, [0, 1] if threaded else [0])
        assert list(coming) == [1, 2, 3, 4]
    assert made == [0, 1, 2, 3, 4]


def test_the_makers_error_reaches_the_user() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("nothing more")

    with ahead(items()) as coming:
        assert next(coming) == 1
        with pytest.raises(ValueError, match="nothing more"):
            next(coming)


def test_leaving_early_ends_the_maker() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            yield item

    with ahead(items()) as coming:
        next(coming)
    assert len(made) <= 2
