"""Beside: work that a thread of its own does while its caller goes on, a few items before or behind it.

Given functions and iterables. Errors of the thread reach the caller as they are, and no thread outlives its block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
_LAST = object()


class Behind(AbstractContextManager["Behind[Item]"], Generic[Item]):
    """Does `work` with each item that it is given, in their order, at most `waiting` items behind.

    The block's end waits for all of them; when it ends by an exception, what has not begun is left out. Once `work` has
    raised, it is not called again, and `give` or the block's end raises the same.
    """

    def __init__(self, work: Callable[[Item], object], *, waiting: int = 2) -> None:
        self._work, self._waiting = work, waiting
        self._over = False
        self._begun: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="i2vgen_ms-behind")

    def give(self, item: Item) -> None:
        """Hands an item over, and waits while too many of them wait."""
        while len(self._begun) >= self._waiting or (self._begun and self._begun[0].done()):
            self._begun.popleft().result()
        self._begun.append(self._thread.submit(self._do, item))

    def _do(self, item: Item) -> None:
        if self._over:
            return
        try:
            self._work(item)
        except BaseException:
            self._over = True
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while error is None and self._begun:
                self._begun.popleft().result()
        finally:
            self._over = True
            _end(self._thread)


@contextmanager
def ahead(items: Iterable[Item], *, threaded: bool = True) -> Iterator[Iterator[Item]]:
    """The same items, each made while its predecessor is in use: `with ahead(items) as made: for item in made: ...`.

    threaded: False makes each when it is asked for.
    """
    if not threaded:
        yield iter(items)
        return
    thread = ThreadPoolExecutor(1, thread_name_prefix="i2vgen_ms-ahead")
    try:
        yield _made(iter(items), thread)
    finally:
        _end(thread)


def _made(items: Iterator[Item], thread: ThreadPoolExecutor) -> Iterator[Item]:
    following: Future[Any] = thread.submit(next, items, _LAST)
    while (item := following.result()) is not _LAST:
        following = thread.submit(next, items, _LAST)
        yield item


def _end(thread: ThreadPoolExecutor) -> None:
    """Waits for the item in hand, also when it is interrupted: what the thread uses is about to be taken away."""
    interrupted: BaseException | None = None
    last = thread.submit(int)
    # Not by joining: a join that is interrupted takes the thread for ended (Python 3.12 and before).
    while not last.done():
        try:
            last.result()
        except BaseException as error:  # Ctrl-C, maybe a second one
            interrupted = error
    thread.shutdown(wait=True)
    if interrupted is not None:
        raise interrupted
