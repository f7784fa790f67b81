"""Recorded calls: which are recorded, what is replayed, and what follows a recording that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from i2vgen_ms.diffusion.guidance import ClassifierFree
from i2vgen_ms.runtime import graphs
from i2vgen_ms.runtime.graphs import KINDS, Graphs, GraphWarning, recorded
from tests.runtime.small import inputs, small_network


class Tape:
    """Stands in for the device: what is recorded is the function, which writes to one place."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.did: list[str] = []
        self._problem = problem

    def warm_up(self, function: Callable[[], Tensor]) -> Tensor:
        self.did.append("warm up")
        return function()

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.did.append("record")
        if self._problem is not None:
            raise self._problem
        out = torch.full_like(function(), float("nan"))

        def replay() -> None:
            self.did.append("replay")
            out.copy_(function())

        return replay, out

    def close(self) -> None:
        self.did.append("close")


def states(count: int) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(5)
    return [(torch.randn(1, 4, 3, 4, 6, generator=draw), torch.tensor([700.0 - 50 * step])) for step in range(count)]


@pytest.mark.parametrize("branches", ["batched", "sequential"])
@torch.no_grad()
def test_a_guided_run_is_recorded_once_a_kind_of_call(branches: Any) -> None:
    network, tape = small_network(), Tape()
    conditions = [{"text": inputs(seed)["text"]} for seed in range(2)]
    guidance = ClassifierFree(scale=3.0, branches=branches)
    played = Graphs(network, tape)
    guided, plain = (guidance.conditioned(one, *conditions) for one in (played, network))
    got = [guided(x, t) for x, t in states(4)]
    assert all(torch.equal(mine, plain(x, t)) for mine, (x, t) in zip(got, states(4), strict=True))
    kinds = 1 if branches == "batched" else 2
    assert [tape.did.count(word) for word in ("warm up", "record", "replay")] == [kinds, kinds, 3 * kinds]
    played.close()
    assert tape.did[-1] == "close"
    assert torch.equal(guided(*states(1)[0]), got[0])


@torch.no_grad()
def test_another_size_is_another_recording() -> None:
    network, tape = small_network(), Tape()
    text, played = inputs()["text"], Graphs(network, tape)
    given = [(one, t) for x, t in states(4) for one in (x, x[:, :, :2])]
    got = [played(x, t, text=text) for x, t in given]  # which stay as they are when others are made
    assert all(torch.equal(one, network(x, t, text=text)) for one, (x, t) in zip(got, given, strict=True))
    assert tape.did.count("record") == 2


@torch.no_grad()
def test_conditions_that_are_made_anew_for_each_call_are_not_recorded() -> None:
    tape = Tape()
    played = Graphs(lambda x, t, y: x * y, tape)
    for x, t in states(KINDS + 3):
        assert torch.equal(played(x, t, y=torch.tensor(2.0)), 2 * x)
    assert tape.did == ["warm up"] * KINDS + ["close"]


@pytest.mark.parametrize("branches", ["batched", "sequential"])
@torch.no_grad()
def test_a_recording_that_fails_leaves_the_plain_calls(branches: Any) -> None:
    network = small_network()
    tape = Tape(RuntimeError("operation not permitted when stream is capturing\nmore"))
    conditions = [{"text": inputs(seed)["text"]} for seed in range(2)]
    guidance = ClassifierFree(scale=3.0, branches=branches)
    guided, plain = (guidance.conditioned(one, *conditions) for one in (Graphs(network, tape), network))
    (x, t), *others = states(4)
    assert torch.equal(guided(x, t), plain(x, t))
    with pytest.warns(GraphWarning, match=r"cannot be recorded.*: operation not permitted when stream is capturing$"):
        assert torch.equal(guided(*others[0]), plain(*others[0]))
    for x, t in others:
        assert torch.equal(guided(x, t), plain(x, t))
    assert tape.did.count("record") == 1
    assert "close" in tape.did


def test_errors_of_the_first_call_are_the_networks_own() -> None:
    def broken(x: Tensor, t: Tensor) -> Tensor:
        raise MemoryError("of the network")

    with pytest.raises(MemoryError, match="of the network"):
        Graphs(broken, Tape())(*states(1)[0])


class Placed(torch.Tensor):
    """A tensor that says it is on a CUDA device."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("mode", "frames", "wanted"), [("auto", 32, True), ("auto", 400, False), ("on", 400, True), ("off", 32, False)]
)
def test_what_is_recorded(monkeypatch: pytest.MonkeyPatch, mode: str, frames: int, wanted: bool) -> None:
    tape = Tape()
    monkeypatch.setattr(graphs, "CudaRecorder", lambda device: tape)
    x = torch.empty(1, 4, frames, 32, 56)
    with recorded(abs, x.as_subclass(Placed), mode) as network:
        assert isinstance(network, Graphs) is wanted
    assert tape.did == ["close"] * wanted
    with recorded(abs, x, "on") as network:
        assert network is abs  # the CPU has no launches to wait for
    with pytest.raises(KeyError), recorded(abs, x.as_subclass(Placed), "on"):
        raise KeyError("freed all the same")
    assert tape.did[-1] == "close"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("branches", ["batched", "sequential"])
@torch.no_grad()
def test_on_a_device_it_gives_the_same_bits_and_its_memory_back(branches: Any) -> None:
    network = small_network().to("cuda:0")
    conditions = [{"text": inputs(seed)["text"].cuda()} for seed in range(2)]
    guidance = ClassifierFree(scale=3.0, branches=branches)
    given = [(x.cuda(), t.cuda()) for x, t in states(5)]
    plain = guidance.conditioned(network, *conditions)
    wanted = [plain(x, t) for x, t in given]
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    for _ in range(2):
        with recorded(network, given[0][0], "auto") as played:
            guided = guidance.conditioned(played, *conditions)
            assert all(torch.equal(guided(x, t), one) for (x, t), one in zip(given, wanted, strict=True))
            assert sum(call.replay is not None for call in played._calls.values()) == (1 + (branches == "sequential"))
    del guided
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + 2**26  # what libraries keep for the stream


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_that_waits_for_its_device_runs_as_it_is() -> None:
    def waiting(x: Tensor, t: Tensor) -> Tensor:
        return x * float(t.sum())

    given = [(x.cuda(), t.cuda()) for x, t in states(4)]
    with recorded(waiting, given[0][0], "on") as played:
        assert torch.equal(played(*given[0]), waiting(*given[0]))
        with pytest.warns(GraphWarning):
            assert torch.equal(played(*given[1]), waiting(*given[1]))
        assert torch.equal(played(*given[2]), waiting(*given[2]))
    torch.randn(3, device="cuda:0")  # the generator is not left waiting for a recording's end
    with recorded(small_network().cuda(), given[0][0], "on") as played:
        text = inputs()["text"].cuda()
        for x, t in given:
            played(x, t, text=text)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_threads_record_side_by_side_and_others_take_and_give_back_memory() -> None:
    networks = [small_network().cuda() for _ in range(3)]
    text, wrong, done = inputs()["text"].cuda(), list[int](), threading.Event()
    given = [(x.cuda(), t.cuda()) for x, t in states(6)]
    wanted = [networks[0](x, t, text=text) for x, t in given]
    torch.cuda.synchronize()

    def work(index: int) -> None:
        with torch.no_grad():
            for _ in range(4):
                with recorded(networks[index], given[0][0], "on") as played:
                    for (x, t), one in zip(given, wanted, strict=True):
                        if not torch.equal(played(x, t, text=text), one):
                            wrong.append(index)

    def disturb() -> None:
        while not done.wait(0.001):
            torch.zeros(2**22, device="cuda:0").sum().item()
            torch.cuda.empty_cache()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    disturbing = threading.Thread(target=disturb)
    for thread in (*threads, disturbing):
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    done.set()
    disturbing.join(120)
    assert not wrong
