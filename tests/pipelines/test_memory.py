"""Memory modes through whole calls: the same video in each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms import catalogue
from i2vgen_ms.autoencoder import strips
from i2vgen_ms.config.part import PartSpec
from i2vgen_ms.errors import ArgumentError, ForkError, OutOfMemoryError
from i2vgen_ms.pipelines import ImageToVideo, MemoryWarning, arguments, image_to_video, load, stage
from i2vgen_ms.runtime import memory, residency
from i2vgen_ms.runtime.memory import PLANS
from i2vgen_ms.runtime.residency import Resident
from tests.oracle import relative_error

CALL: dict[str, Any] = {"steps": 2, "seed": 3, "output_type": "pt", "progress": False}


@pytest.mark.parametrize("mode", ["auto", *PLANS])
def test_on_the_cpu_no_mode_changes_a_number(pipe: ImageToVideo, picture: np.ndarray, mode: str) -> None:
    wanted = pipe(picture, **CALL).tensor
    assert torch.equal(pipe(picture, memory=mode, **CALL).tensor, wanted)


def test_an_unknown_mode_is_refused(pipe: ImageToVideo, folder: Path, picture: np.ndarray) -> None:
    with pytest.raises(ArgumentError, match=r"memory='hight'.*'fast'"):
        pipe(picture, memory="hight", **CALL)
    with pytest.raises(ArgumentError, match="memory"):
        load(folder, device="cpu", memory="lowest")


@pytest.fixture
def moving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageToVideo]:
    """A pipeline whose networks move, to other memory of the host, as they do on a CUDA device."""
    monkeypatch.setattr(residency, "free_bytes", lambda device: 10**12)
    pipe = load(folder, device="cpu")
    loaded = pipe._loader._loaded
    for name, (dtype, resident) in loaded.items():
        loaded[name] = (dtype, Resident(resident.network, pipe.device, movable=True))
    planned = stage.Call.planned

    class Cuda:
        type = "cuda"

    monkeypatch.setattr(stage.Call, "planned", lambda self, device: planned(self, Cuda()))  # type: ignore[arg-type]
    return pipe


@pytest.mark.parametrize("mode", PLANS)
def test_every_mode_makes_the_same_video(
    moving: ImageToVideo, pipe: ImageToVideo, picture: np.ndarray, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    branches = "sequential" if PLANS[mode].sequential else "batched"
    wanted = pipe(picture, guidance_branches=branches, **CALL).tensor
    seen = where(moving, monkeypatch)
    assert torch.equal(moving(picture, memory=mode, **CALL).tensor, wanted)
    there = {"fast": {"encoder", "st_unet", "autoencoder"}, "balanced": set(), "low": set()}[mode]
    assert {name for name, one in moving.networks.residents.items() if one.on_device} == there
    assert seen == {"fast": [True] * 3, "balanced": [True] * 3, "low": [False, False, True]}[mode]


@pytest.mark.parametrize("mode", PLANS)
def test_calls_are_recorded_unless_the_weights_come_and_go(
    moving: ImageToVideo, picture: np.ndarray, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        image_to_video, "sample", lambda network, diffusion, x, *, graphs, **other: asked.append(graphs) or x
    )
    moving(picture, memory=mode, cuda_graphs="on", **CALL)
    moving(picture, memory=mode, **CALL)
    assert asked == (["off", "off"] if mode == "low" else ["on", "auto"])


def where(pipe: ImageToVideo, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Fills with whether each network is there as a whole at its first use."""
    seen: list[bool] = []
    for one in pipe.networks.residents.values():
        module = getattr(one.network, "decoder", one.network)
        done: list[bool] = []

        def look(module: Any, args: Any, one: Resident = one, done: list[bool] = done) -> None:
            if not done:
                done.append(True)
                seen.append(one.on_device)

        module.register_forward_pre_hook(look)
    return seen


def test_branches_that_the_call_asks_for_are_kept(moving: ImageToVideo, picture: np.ndarray) -> None:
    batches: list[int] = []
    moving.networks.st_unet.register_forward_hook(lambda module, args, out: batches.append(len(out)))
    moving(picture, memory="balanced", guidance_branches="batched", **CALL)
    moving(picture, memory="balanced", **CALL)
    assert batches == [2, 2, 1, 1, 1, 1]


def test_a_configuration_that_does_not_name_branches_has_the_part_s_own(
    moving: ImageToVideo, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    guidance = moving.configuration.diffusion.guidance.to_json()
    del guidance["branches"]
    moving.configuration = moving.configuration.replace("diffusion.guidance", guidance)
    batches, rooms = list[int](), list[int]()
    moving.networks.st_unet.register_forward_hook(lambda module, args, out: batches.append(len(out)))
    resident, placed = moving.networks.residents["st_unet"], Resident.placed

    def noted(self: Resident, *, workspace: int, **other: Any) -> Any:
        if self is resident:
            rooms.append(workspace)
        return placed(self, workspace=workspace, **other)

    monkeypatch.setattr(Resident, "placed", noted)
    moving(picture, memory="fast", **CALL)
    moving(picture, memory="balanced", **CALL)
    assert batches == [2, 2, 1, 1, 1, 1]
    batched, sequential = rooms
    assert batched > sequential


def test_guidance_without_branches_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(*, scale: float) -> None: ...

    monkeypatch.setattr(catalogue, "resolve", lambda slot, name, where="": own)
    assert arguments.branches(PartSpec("own", {"scale": 2.0})) is None


def test_the_plan_says_how_small_the_autoencoders_chunks_are(
    moving: ImageToVideo, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, room = set[int](), list[int]()
    coded, placed = strips.coded, Resident.placed

    def watched(coder: Any, x: torch.Tensor, *, limit: int) -> torch.Tensor:
        limits.add(limit)
        return coded(coder, x, limit=limit)

    def noted(self: Resident, *, workspace: int, **options: Any) -> Any:
        if self is moving.networks.residents["autoencoder"]:
            room.append(workspace)
        return placed(self, workspace=workspace, **options)

    monkeypatch.setattr(strips, "coded", watched)
    monkeypatch.setattr(Resident, "placed", noted)
    wanted = moving(picture, memory="low", **CALL).tensor
    assert limits == set()
    monkeypatch.setattr(memory, "LOW_CHUNKS", (1, 1))
    got = moving(picture, memory="low", **CALL).tensor
    assert limits == {1}
    assert relative_error(got, wanted) <= 1e-5
    assert room[-1] < room[0] == 256 * 2**20


def test_auto_follows_the_free_memory(
    moving: ImageToVideo, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(stage, "choose", lambda mode, needs, free: chosen.append(free) or PLANS["fast"])
    monkeypatch.setattr(residency, "available_bytes", lambda device: 12345)
    moving(picture, **CALL)
    assert chosen == [12345]


def test_two_pipelines_take_turns_on_a_small_device(
    folder: Path, moving: ImageToVideo, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = load(folder, device="cpu")
    loaded = second._loader._loaded
    for name, (dtype, resident) in loaded.items():
        loaded[name] = (dtype, Resident(resident.network, second.device, movable=True))
    both = [*moving.networks.residents.values(), *second.networks.residents.values()]
    size = sum(one.nbytes for one in moving.networks.residents.values()) + 2**30
    monkeypatch.setattr(residency, "free_bytes", lambda device: size - sum(one.nbytes for one in both if one.on_device))
    wanted = moving(picture, memory="fast", **CALL).tensor
    assert torch.equal(second(picture, memory="fast", **CALL).tensor, wanted)
    assert torch.equal(moving(picture, memory="fast", **CALL).tensor, wanted)
    assert sum(one.nbytes for one in both if one.on_device) <= size


def full(pipe: ImageToVideo, times: int) -> None:
    """The device's memory is full the next `times` times that the ST-UNet runs."""
    network, left = pipe.networks.st_unet, [times]
    forward = network.forward

    def refuse(*args: Any, **conditions: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return forward(*args, **conditions)

    network.forward = refuse


@pytest.mark.parametrize(("times", "mode"), [(1, "balanced"), (2, "low")])
def test_a_lower_mode_is_tried_when_memory_runs_out(
    moving: ImageToVideo, picture: np.ndarray, times: int, mode: str
) -> None:
    wanted = moving(picture, memory=mode, **CALL).tensor
    full(moving, times)
    with pytest.warns(MemoryWarning, match="again with memory=.*out of memory while sampling") as seen:
        assert torch.equal(moving(picture, memory="fast", on_oom="lower", **CALL).tensor, wanted)
    assert [str(one.message).split("'")[1] for one in seen] == ["balanced", "low"][:times]


@pytest.mark.parametrize(("memory", "what"), [("low", "lower"), ("fast", "raise")])
def test_without_a_lower_mode_it_raises(moving: ImageToVideo, picture: np.ndarray, memory: str, what: str) -> None:
    wanted = moving(picture, memory=memory, **CALL).tensor
    full(moving, 1)
    with pytest.raises(OutOfMemoryError, match=r"sampling; lower the memory mode .*1\.00 GiB"):
        moving(picture, memory=memory, on_oom=what, **CALL)
    assert torch.equal(moving(picture, memory=memory, **CALL).tensor, wanted)


def test_nothing_of_a_call_outlives_its_shortage(pipe: ImageToVideo, picture: np.ndarray) -> None:
    from weakref import ref

    held: list[Any] = []

    def refuse(module: Any, args: Any, result: torch.Tensor) -> None:
        held.append(ref(result))
        raise MemoryError

    hook = pipe.networks.st_unet.register_forward_hook(refuse)
    try:
        with pytest.raises(OutOfMemoryError, match="fewer frames") as error:
            pipe(picture, **CALL)
    finally:
        hook.remove()
    assert error.value.__traceback__ is not None  # somebody keeps the error
    assert held[0]() is None


def test_a_forked_process_is_told_so(pipe: ImageToVideo, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(ForkError, match=r"load the pipeline in the child.*'spawn'"):
        pipe(picture, **CALL)
