"""Worker processes that prepare batches ahead of their use; the batches come in the order of their plans.

Given a source and plans. The processes end with the iteration, and with this process however that ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import cycle
from typing import Any, cast

from i2vgen_ms.errors import I2VGenError
from i2vgen_ms.training.data.batch import Plan, Source
from i2vgen_ms.training.data.worker import receive, send

AHEAD = 2  # batches a worker is given before the first of them is used
_COMMAND = "from i2vgen_ms.training.data.worker import main; main()"


def prepared(source: Source, plans: Iterable[Plan], *, then: Callable[[Any], Any] = lambda made: made) -> Iterator[Any]:
    """What the source prepares for each plan, in their order. `then` is applied beside the main thread.

    Raises: what the source raises; I2VGenError when a worker dies.
    """
    workers = [_Worker(source, then) for _ in range(source.workers)]
    waiting: deque[Future[Any]] = deque()
    try:
        turn = cycle(workers)
        for plan in plans:
            waiting.append(next(turn).ask(plan))
            if len(waiting) >= AHEAD * len(workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """One process, and the thread that talks with it."""

    def __init__(self, source: Source, then: Callable[[Any], Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._then = then
        self._plans: queue.SimpleQueue[tuple[Plan, Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._talk, args=(source,), daemon=True)
        self._thread.start()

    def ask(self, plan: Plan) -> Future[Any]:
        answer: Future[Any] = Future()
        self._plans.put((plan, answer))
        return answer

    def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        self._plans.put(None)
        self._process.kill()
        self._thread.join()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _talk(self, source: Source) -> None:
        requests, answers = cast(Any, self._process.stdin), cast(Any, self._process.stdout)
        failure: BaseException | None = None
        try:
            send(requests, source)
        except Exception as error:  # a source that cannot be sent, or a process that did not come up
            failure = error
        while (item := self._plans.get()) is not None:
            plan, answer = item
            try:
                if failure is not None:
                    raise failure
                send(requests, plan)
                made, problem = receive(answers)
                if problem is not None:
                    problem[0].add_note(f"in a worker process:\n{problem[1]}")
                    raise problem[0]
                answer.set_result(self._then(made))
            except (EOFError, BrokenPipeError) as error:
                words = f"a worker process of the data ended (status {self._process.wait()}); see its words above"
                failure = I2VGenError(f"{words}, or give data.workers 0")
                failure.__cause__ = error
                answer.set_exception(failure)
            except BaseException as error:
                answer.set_exception(error)
