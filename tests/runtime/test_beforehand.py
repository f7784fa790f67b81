"""Kernels compiled beforehand: which they are, that the list of them is today's, and that none is left for later."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from i2vgen_ms.config import reader
from i2vgen_ms.runtime import beforehand
from i2vgen_ms.runtime.beforehand import compile_kernels, variants

ROOT = Path(__file__).resolve().parents[2]
CUDA = torch.device("cuda", 0)
HALF = {"encoder": "float32", "st_unet": "float16", "autoencoder": "float16"}
SECOND = reader.shipped("video-to-video")

needs_triton = pytest.mark.skipif(
    sys.platform != "linux" or importlib.util.find_spec("triton") is None, reason="Triton is made for Linux"
)


@pytest.fixture(autouse=True)
def _hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of that kind, for which nothing is compiled yet, and nothing is in these tests."""
    monkeypatch.setattr(beforehand, "on_hopper", lambda device: True)
    monkeypatch.setattr(beforehand, "_has_triton", lambda device: True)
    monkeypatch.setattr(beforehand, "_compiled", set())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is compiled, as it is."""
    done: list[str] = []
    monkeypatch.setattr(beforehand, "_compile", lambda one, device: done.append(repr(one)))
    return done


def kernels(**options: Any) -> set[str]:
    given: dict[str, Any] = {"configuration": SECOND, "dtypes": HALF, "device": CUDA} | options
    return {kernel for kernel, _, _ in variants(**given)}


def test_the_longest_come_first_and_each_once() -> None:
    found = variants(SECOND, HALF, CUDA)
    assert len({repr(one) for one in found}) == len(found) > len(kernels()) > 10
    assert {kernel for kernel, _, _ in found[:3]} == set(beforehand.OF_HOPPER)


def test_other_devices_have_those_that_they_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = kernels()
    monkeypatch.setattr(beforehand, "on_hopper", lambda device: False)
    assert everything - kernels() == set(beforehand.OF_HOPPER)


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
    tried = {one[0] for one in json.loads((ROOT / "configuration" / "kernels.json").read_text())["trial"]}
    assert kernels(**options) >= tried
    assert (len(kernels(**options)) > len(tried)) is left


def test_each_is_compiled_once_beside_others(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    together, record = threading.Barrier(2, timeout=30), beforehand._compile

    def slow(one: Any, device: torch.device) -> None:
        if len(compiled) < 2:
            together.wait()  # for another one; alone it would wait in vain, and raise
        record(one, device)

    monkeypatch.setattr(beforehand, "_compile", slow)
    monkeypatch.setattr(beforehand, "_processors", lambda: 2)
    compile_kernels(SECOND, HALF, CUDA)
    assert sorted(compiled) == sorted(repr(one) for one in variants(SECOND, HALF, CUDA))
    compile_kernels(SECOND, HALF, CUDA)
    assert len(compiled) == len(set(compiled))
    compile_kernels(SECOND, HALF | {"st_unet": "bfloat16"}, CUDA)
    assert len(compiled) == len(set(compiled)) > len(variants(SECOND, HALF, CUDA))


def test_what_does_not_compile_is_left_to_whoever_launches_it(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = beforehand._compile

    def failing(one: Any, device: torch.device) -> None:
        if one[0] in beforehand.OF_HOPPER:
            raise RuntimeError("no such instruction")
        record(one, device)

    monkeypatch.setattr(beforehand, "_compile", failing)
    compile_kernels(SECOND, HALF, CUDA)
    others = [one for one in variants(SECOND, HALF, CUDA) if one[0] not in beforehand.OF_HOPPER]
    assert len(compiled) == len(others) > 0


def test_without_triton_nothing_is(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not beforehand._has_triton(CUDA)


def python(tmp_path: Path, *words: str) -> str:
    """Another process's output: this one's Triton may be set to its interpreter for good."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
