"""Kernels compiled beforehand: which they are, that the list of them is today's, and that none is left for later."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from i2vgen_ms.config import reader
from i2vgen_ms.runtime import beforehand
from i2vgen_ms.runtime.beforehand import compile_kernels, variants
from tests.runtime.uninterpreted import ROOT, python

CUDA = torch.device("cuda", 0)
HALF = {"encoder": "float32", "st_unet": "float16", "autoencoder": "float16"}
SECOND = reader.shipped("video-to-video")

needs_triton = pytest.mark.skipif(
    sys.platform != "linux" or importlib.util.find_spec("triton") is None, reason="Triton is made for Linux"
)


HAS_TRITON = beforehand._has_triton


@pytest.fixture(autouse=True)
def capability(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """That of a device, for which nothing is compiled yet, and nothing is in these tests."""
    number = [9, 0]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: tuple(number))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(beforehand, "_has_triton", lambda device: True)
    monkeypatch.setattr(beforehand, "_compiled", set())
    return number


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is compiled, as it is."""
    done: list[str] = []
    monkeypatch.setattr(beforehand, "_compile", lambda one, device: done.append(repr(one)))
    return done


def told(**options: Any) -> list[beforehand.Variant]:
    given: dict[str, Any] = {"configuration": SECOND, "dtypes": HALF, "device": CUDA} | options
    return variants(**given)


def kernels() -> set[str]:
    return {kernel for kernel, _, _ in told()}


def test_the_longest_come_first_and_each_once() -> None:
    found = variants(SECOND, HALF, CUDA)
    assert len({repr(one) for one in found}) == len(found) > len(kernels()) > 10
    assert {kernel for kernel, _, _ in found[:4]} == set(beforehand.LONGEST)


@pytest.mark.parametrize(
    ("number", "without"),
    [
        ([8, 0], {"long_attention._attend", "narrow_geglu._product", "geglu._product"}),
        ([9, 0], set()),
        ([10, 0], {"long_attention._attend", "narrow_geglu._product"}),
    ],
)
def test_a_device_has_those_that_it_can_have(capability: list[int], number: list[int], without: set[str]) -> None:
    everything = kernels()
    capability[:] = number
    assert everything - kernels() == without


def test_formats_are_those_of_the_networks() -> None:
    both = repr(variants(SECOND, HALF, CUDA))
    assert "bfloat16" not in both
    assert "half" not in both
    one = variants(SECOND, HALF | {"st_unet": "bfloat16"}, CUDA)
    assert any(kernel == "long_attention._attend" and given[0]["dtype"] == "bfloat16" for kernel, given, _ in one)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"dtypes": dict.fromkeys(HALF, "float32")}, False),
        ({"configuration": reader.shipped("small-video-to-video")}, False),
        ({"configuration": reader.shipped("image-to-video-rotary")}, True),
        ({"configuration": SECOND.replace("output.num_frames", 16)}, True),
    ],
)
def test_networks_of_other_widths_or_formats_have_theirs_later(options: dict[str, Any], left: bool) -> None:
    tried = json.loads((ROOT / "configuration" / "kernels.json").read_text())["trial"]
    those = {repr(tuple(one)) for one in tried}
    found = {repr(one) for one in told(**options)}
    assert found >= those
    assert (len(found) > len(those)) is left


def test_each_is_compiled_once_beside_others(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    together, record, begun = threading.Barrier(2, timeout=30), beforehand._compile, itertools.count()

    def slow(one: Any, device: torch.device) -> None:
        if next(begun) < 2:
            together.wait()  # for another one; alone it would wait in vain, and raise
        record(one, device)

    monkeypatch.setattr(beforehand, "_compile", slow)
    monkeypatch.setattr(beforehand, "_processors", lambda: 2)
    count = compile_kernels(SECOND, HALF, CUDA)
    assert sorted(compiled) == sorted(repr(one) for one in variants(SECOND, HALF, CUDA))
    assert count == len(compiled)
    assert compile_kernels(SECOND, HALF, CUDA) == 0
    more = compile_kernels(SECOND, HALF | {"st_unet": "bfloat16"}, CUDA)
    assert len(compiled) == len(set(compiled)) == count + more > count


def test_what_does_not_compile_is_left_to_whoever_launches_it(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = beforehand._compile

    def failing(one: Any, device: torch.device) -> None:
        if one[0] in beforehand.LONGEST:
            raise RuntimeError("no such instruction")
        record(one, device)

    monkeypatch.setattr(beforehand, "_compile", failing)
    others = [one for one in variants(SECOND, HALF, CUDA) if one[0] not in beforehand.LONGEST]
    assert compile_kernels(SECOND, HALF, CUDA) == len(compiled) == len(others) > 0


@pytest.mark.parametrize("most", [0, 1])
def test_with_too_few_threads_the_rest_is_left(compiled: list[str], monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    start, begun = threading.Thread.start, itertools.count()

    def limited(self: threading.Thread) -> None:
        if next(begun) >= most:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(beforehand, "_processors", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", limited)
    assert (compile_kernels(SECOND, HALF, CUDA) > 0) == (most > 0)
    assert len(compiled) <= len(variants(SECOND, HALF, CUDA))


def test_what_was_interrupted_is_compiled_the_next_time(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(jobs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(beforehand, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compile_kernels(SECOND, HALF, CUDA)
    compiled.clear()
    assert compile_kernels(SECOND, HALF, CUDA) == len(compiled) > 0


@pytest.mark.parametrize("there", [True, False])
def test_without_a_triton_that_works_nothing_is(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    driver = SimpleNamespace(active=SimpleNamespace(get_current_target=lambda: "a device"))
    triton = SimpleNamespace(runtime=SimpleNamespace(driver=driver))
    monkeypatch.setattr(beforehand, "_has_triton", HAS_TRITON)
    monkeypatch.setitem(sys.modules, "triton", triton if there else None)
    assert (compile_kernels(SECOND, HALF, CUDA) > 0) == there == bool(compiled)


@needs_triton
def test_the_list_is_of_the_kernels_that_there_are(tmp_path: Path) -> None:
    code = "from benchmarks import kernels; print(kernels.written(kernels.found()), end='')"
    wanted = (ROOT / "configuration" / "kernels.json").read_text()
    assert python(tmp_path, "-c", code) == wanted, "python -m benchmarks.kernels --write"


@needs_triton
@pytest.mark.full
@pytest.mark.parametrize("task", ["image-to-video", "video-to-video"])
def test_no_kernel_is_left_for_later(tmp_path: Path, task: str) -> None:
    before, later = json.loads(python(tmp_path, "-m", "tests.runtime.kernels.launched_later", task))
    assert before == len(variants(reader.shipped(task), HALF, CUDA))
    assert later == []
