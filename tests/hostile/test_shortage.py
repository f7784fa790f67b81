"""Group G, memory: running out of it at any stage is one typed error with advice, and the pipeline goes on."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2vgen_ms.errors import OutOfMemoryError
from i2vgen_ms.media import picture as pictures
from i2vgen_ms.media.writers.container import ContainerSink
from i2vgen_ms.pipelines import ImageToVideo, MemoryWarning, VideoToVideo
from tests.hostile.helpers import leaves
from tests.media.writers.samples import moving as frames
from tests.pipelines.test_memory import moving  # noqa: F401 - a pipeline whose networks move, as on a CUDA device

pytestmark = [pytest.mark.hostile, pytest.mark.group("G")]

ROOT = Path(__file__).resolve().parents[2]
CALL: dict[str, Any] = {"steps": 3, "seed": 1, "num_frames": 3}
KINDS: dict[str, Callable[[], BaseException]] = {
    "host": MemoryError,
    "torch": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}
ADVICE = {
    "host": "fewer frames",
    "torch": "fewer frames",
    "cuda": "lower the memory mode .*on_oom='lower'.*float16",
    "cublas": "lower the memory mode .*on_oom='lower'.*float16",
}


@contextmanager
def short(pipe: Any, stage: str, make: Callable[[], BaseException], *, times: int = 1) -> Iterator[None]:
    """Memory runs out the next `times` times that a call comes to `stage`."""
    left, calls = [times], [0]

    def before(original: Callable[..., Any], at: int = 1) -> Callable[..., Any]:
        def changed(*given: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] >= at and left[0]:
                left[0], calls[0] = left[0] - 1, 0
                raise make()
            return original(*given, **named)

        return changed

    networks = pipe.networks
    owner, name, at = {
        "reading": (pictures, "_rgb", 1),
        "encoder": (networks.encoder, "forward", 1),
        "encoding the clip": (networks.autoencoder, "encode", 1),
        "step 1": (networks.st_unet, "forward", 1),
        "mid": (networks.st_unet, "forward", 2),
        "decoding": (networks.autoencoder, "decode", 1),
        "writing": (ContainerSink, "write", 2),
    }[stage]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, before(getattr(owner, name), at))
        yield
    assert not left[0], f"the call never came to {stage!r}"


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        *((stage, kind) for stage in ("encoder", "step 1", "mid", "decoding") for kind in KINDS),
        ("reading", "host"),  # torch and the device take no part in these
        ("writing", "host"),
    ],
)
def test_it_ends_in_advice(pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path, stage: str, kind: str) -> None:
    wanted = pipe(picture, **CALL).video
    Image.fromarray(picture).save(tmp_path / "in.png")
    with (
        leaves(tmp_path),
        pytest.raises(OutOfMemoryError, match="out of memory while ") as caught,
        short(pipe, stage, KINDS[kind]),
    ):
        pipe(tmp_path / "in.png", output=tmp_path / "out.mp4", **CALL)
    advice = {"reading": "give a smaller picture", "writing": "make it smaller"}.get(stage, ADVICE[kind])
    assert re.search(advice, str(caught.value))
    assert pipe(picture, **CALL).video == wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["encoder", "encoding the clip", "step 1", "decoding"])
def test_of_the_second_stage_too(second: VideoToVideo, tmp_path: Path, stage: str, kind: str) -> None:
    call = {"steps": 2, "seed": 1, "output_type": "pt"}
    wanted = second(frames(64, 32, 3), **call).tensor
    with leaves(tmp_path), pytest.raises(OutOfMemoryError, match=ADVICE[kind]), short(second, stage, KINDS[kind]):
        second(frames(64, 32, 3), output=tmp_path / "out.mp4", **call)
    assert torch.equal(second(frames(64, 32, 3), **call).tensor, wanted)


@pytest.mark.parametrize("stage", ["encoder", "step 1", "mid", "decoding"])
@pytest.mark.parametrize(("times", "mode"), [(1, "balanced"), (2, "low")])
def test_a_lower_mode_makes_what_it_would_have_made(
    moving: ImageToVideo,  # noqa: F811
    picture: np.ndarray,
    tmp_path: Path,
    stage: str,
    times: int,
    mode: str,
) -> None:
    wanted = moving(picture, memory=mode, **CALL).video
    with (
        leaves(tmp_path, "out.mp4"),
        pytest.warns(MemoryWarning, match="trying again with memory=") as warned,
        short(moving, stage, KINDS["cuda"], times=times),
    ):
        moving(picture, output=tmp_path / "out.mp4", memory="fast", on_oom="lower", **CALL)
    assert len(warned) == times
    assert (tmp_path / "out.mp4").read_bytes() == wanted


def test_the_lowest_mode_is_the_end(
    moving: ImageToVideo,  # noqa: F811
    picture: np.ndarray,
    tmp_path: Path,
) -> None:
    with (
        leaves(tmp_path),
        pytest.warns(MemoryWarning) as warned,
        pytest.raises(OutOfMemoryError, match="fewer frames or a smaller width"),
        short(moving, "step 1", KINDS["cuda"], times=3),
    ):
        moving(picture, output=tmp_path / "out.mp4", memory="fast", on_oom="lower", **CALL)
    assert len(warned) == 2
    assert not [one for one in moving.networks.residents.values() if one.on_device]
    assert moving(picture, memory="low", **CALL).video == moving(picture, memory="balanced", **CALL).video


LIMITED = """
import os, resource, sys
import numpy as np
from i2vgen_ms.errors import OutOfMemoryError
from i2vgen_ms.pipelines import load
model, target = sys.argv[1:]
pipe = load(model, device="cpu")
picture = np.zeros((90, 160, 3), np.uint8)
call = dict(steps=1, seed=1, progress=False)
wanted = pipe(picture, **call).video
def used():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
for what, source, more in (
    ("sampling", picture, dict(num_frames=32, width=1920, height=1080)),
    ("reading", np.zeros((7000, 9000, 3), np.float32), {}),
):
    resource.setrlimit(resource.RLIMIT_AS, (used() + (300 << 20), hard))
    try:
        pipe(source, output=target, **call, **more)
        sys.exit(f"{what}: the limit was not felt")
    except OutOfMemoryError as error:
        words = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    if "out of memory while" not in words:
        sys.exit(f"{what}: {words}")
    if pipe(picture, **call).video != wanted:
        sys.exit(f"{what}: another video afterwards")
"""


@pytest.mark.bounds(seconds=120)
def test_a_limit_on_the_memory_of_the_process(folder: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", LIMITED, folder, tmp_path / "out.mp4"]
    with leaves(tmp_path):
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
