"""What arrives on the host is what left the device, and was not waited for."""

from __future__ import annotations

import threading

import pytest
import torch

from i2vgen_ms.tensors.arrival import Arrival, page_locked

HERE = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_what_is_on_the_host_is_given_as_it_is() -> None:
    tensor = torch.randn(3, 4)
    assert Arrival(tensor).wait() is tensor
    assert page_locked(tensor, HERE) is tensor


@needs_cuda
def test_a_copy_is_ordered_behind_the_work_and_complete_once_waited_for() -> None:
    device = torch.device("cuda", 0)
    x = torch.eye(2048, device=device)
    y = torch.full_like(x, 2)
    for _ in range(20):  # the copy begins while these are computed
        y = y @ x
    arrival, got = Arrival(y + 1), list[torch.Tensor]()
    y.fill_(7)  # comes after the copy
    waiting = threading.Thread(target=lambda: got.append(arrival.wait()))
    waiting.start()
    waiting.join()
    assert got[0].device == HERE
    assert torch.equal(got[0], torch.full((2048, 2048), 3.0))
    assert arrival.wait() is got[0]


@needs_cuda
def test_page_locked_memory_holds_the_same_numbers() -> None:
    tensor = torch.randn(3, 4)
    locked = page_locked(tensor, torch.device("cuda", 0))
    assert locked.is_pinned()
    assert torch.equal(locked, tensor)
