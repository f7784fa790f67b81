"""NaN and infinity are found, and named by their own words, although nobody waits for the device."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.diffusion import verdicts
from i2vgen_ms.diffusion.verdicts import Verdicts
from i2vgen_ms.errors import NonFiniteError

GOOD, BAD = torch.zeros(3), torch.tensor([0.0, float("inf"), 0.0])


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a CUDA device."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The answers that were waited for, in order."""
    answers: list[bool] = []

    class Awaited:
        def __init__(self, flag: torch.Tensor) -> None:
            self.flag = flag

        def wait(self) -> torch.Tensor:
            answers.append(bool(self.flag))
            return self.flag

    monkeypatch.setattr(verdicts, "Arrival", Awaited)
    return answers


def test_on_the_host_the_answer_is_there_at_once() -> None:
    asked = Verdicts()
    asked.ask(GOOD, "first")
    with pytest.raises(NonFiniteError, match="second"):
        asked.ask(BAD, "second")
    asked.settle()


def test_on_a_device_it_is_read_one_question_later(read: list[bool]) -> None:
    asked = Verdicts()
    asked.ask(GOOD.as_subclass(Elsewhere), "first")
    assert read == []
    asked.ask(BAD.as_subclass(Elsewhere), "second")
    assert read == [True]
    with pytest.raises(NonFiniteError, match="second"):
        asked.ask(BAD.as_subclass(Elsewhere), "third")
    assert read == [True, False]


def test_the_last_one_is_read_in_the_end(read: list[bool]) -> None:
    asked = Verdicts()
    asked.ask(BAD.as_subclass(Elsewhere), "last")
    with pytest.raises(NonFiniteError, match="last"):
        asked.settle()
    asked.settle()
    assert read == [False]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_of_a_real_device() -> None:
    asked = Verdicts()
    asked.ask(GOOD.cuda(), "first")
    asked.ask(BAD.cuda(), "second")
    with pytest.raises(NonFiniteError, match="second"):
        asked.settle()
