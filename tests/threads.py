"""Numbers of threads, so that runs can be compared bit by bit.

`one_thread` is for a whole package of tests, whose conftest.py imports it; `as_many` for another process.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def as_many() -> dict[str, str]:
    """Environment variables for a process with as many threads as this one.

    How many processors there seem to be can change while tests run, and with other threads sums come out otherwise.
    MKL takes no more of them than it finds processors, unless it is told.
    """
    return {"OMP_NUM_THREADS": str(torch.get_num_threads()), "MKL_DYNAMIC": "FALSE"}
