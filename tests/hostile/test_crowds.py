"""Group H: many calls at once, calls inside calls, other processes; each gives what it gives alone."""

from __future__ import annotations

import gc
import multiprocessing
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms.errors import Cancelled, I2VGenError
from i2vgen_ms.media.video import read_video
from i2vgen_ms.pipelines import Animation, ImageToVideo, Progress, VideoToVideo, load
from tests.hostile.helpers import leaves
from tests.media.writers.samples import moving as frames
from tests.pipelines.test_memory import moving  # noqa: F401 - a pipeline whose networks move, as on a CUDA device

pytestmark = [pytest.mark.hostile, pytest.mark.group("H"), pytest.mark.bounds(seconds=120)]

CALL: dict[str, Any] = {"steps": 2, "num_frames": 3}
CLIP = frames(64, 32, 3)


def together(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each job returns; all begin at the same moment, each in a thread of its own."""
    gate = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        gate.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


@pytest.mark.parametrize("count", [2, 8])
def test_threads_on_one_pipeline(pipe: ImageToVideo, picture: np.ndarray, count: int) -> None:
    alone = [pipe(picture, seed=seed, **CALL).video for seed in range(count)]
    crowd = together([lambda seed=seed: pipe(picture, seed=seed, **CALL).video for seed in range(count)])
    assert crowd == alone
    assert len(set(alone)) == count


def test_threads_on_two_pipelines(pipe: ImageToVideo, folder: Path, picture: np.ndarray) -> None:
    other = load(folder, device="cpu")
    alone = [pipe(picture, seed=seed, **CALL).video for seed in range(4)]
    turns = [(each, seed) for seed in range(4) for each in (pipe, other)]
    jobs = [lambda each=each, seed=seed: each(picture, seed=seed, **CALL).video for each, seed in turns]
    assert together(jobs) == [alone[seed] for _, seed in turns]


def test_both_stages_at_once(pipe: ImageToVideo, second: VideoToVideo, picture: np.ndarray) -> None:
    both = Animation(pipe, second)
    jobs = [
        lambda: pipe(picture, seed=3, **CALL).video,
        lambda: second(CLIP, text="a boat", seed=4, steps=2).video,
        lambda: both(picture, seed=5, first=CALL, second={"steps": 2}).video,
        lambda: second([CLIP, CLIP[::-1]], seed=6, steps=2)[1].video,
    ]
    alone = [job() for job in jobs]
    assert together(jobs) == alone


@pytest.mark.parametrize("mode", ["fast", "balanced", "low"])
def test_threads_while_networks_move(
    moving: ImageToVideo,  # noqa: F811
    picture: np.ndarray,
    mode: str,
) -> None:
    call = {**CALL, "memory": mode, "guidance_branches": "sequential"}
    alone = [moving(picture, seed=seed, **call).video for seed in range(3)]
    assert together([lambda seed=seed: moving(picture, seed=seed, **call).video for seed in range(3)]) == alone
    moving._loader._loaded.clear()  # pytest holds the pipeline for longer than the files of its weights may be open


def test_threads_with_several_dtypes(folder: Path, picture: np.ndarray) -> None:
    pipe = load(folder, device="cpu")
    kinds = ["float32", "bfloat16", "float32", "bfloat16"]
    alone = {kind: pipe(picture, seed=1, dtype=kind, **CALL).video for kind in set(kinds)}
    crowd = together([lambda kind=kind: pipe(picture, seed=1, dtype=kind, **CALL).video for kind in kinds])
    assert crowd == [alone[kind] for kind in kinds]


def test_threads_that_write_to_one_name(pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with leaves(tmp_path, "out.mp4"):
        together([lambda seed=seed: pipe(picture, output=target, seed=seed, **CALL) for seed in range(4)])
    assert read_video(target, max_frames=9).count == 3
    assert target.read_bytes() in [pipe(picture, seed=seed, **CALL).video for seed in range(4)]


def test_one_that_fails_harms_no_other(pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path) -> None:
    def fails() -> Any:
        try:
            return pipe(b"no picture", output=tmp_path / "no.mp4", **CALL)
        except I2VGenError as error:
            return type(error).__name__

    def cancelled() -> Any:
        try:
            return pipe(picture, output=tmp_path / "no.mp4", progress=lambda event: event.step < 2, **CALL)
        except I2VGenError as error:
            return type(error).__name__

    good = [lambda seed=seed: pipe(picture, seed=seed, **CALL).video for seed in range(2)]
    alone = [job() for job in good]
    with leaves(tmp_path):
        assert together([*good, fails, cancelled]) == [*alone, "UnreadableMediaError", "Cancelled"]


def test_a_call_inside_a_call(pipe: ImageToVideo, picture: np.ndarray) -> None:
    inside: list[bytes] = []

    def progress(event: Progress) -> None:
        if not inside:
            inside.append(b"")
            inside[0] = pipe(picture, seed=2, **CALL).video

    outside = pipe(picture, seed=1, progress=progress, **CALL).video
    assert [outside, inside[0]] == [pipe(picture, seed=seed, **CALL).video for seed in (1, 2)]


@pytest.mark.parametrize("stage", ["sampling", "decoding"])
@pytest.mark.parametrize("step", [1, 2])
def test_cancelling(pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path, stage: str, step: int) -> None:
    wanted = pipe(picture, seed=1, **CALL).video

    def progress(event: Progress) -> bool:
        return not (event.stage == stage and event.step >= step)

    with leaves(tmp_path), pytest.raises(Cancelled, match=f"cancelled by the progress callback at {stage}"):
        pipe(picture, output=tmp_path / "out.mp4", seed=1, progress=progress, **CALL)
    assert pipe(picture, seed=1, **CALL).video == wanted


def test_an_error_of_the_callback_is_the_callers(pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path) -> None:
    def progress(event: Progress) -> None:
        raise ZeroDivisionError("mine")

    with leaves(tmp_path), pytest.raises(ZeroDivisionError, match="mine"):
        pipe(picture, output=tmp_path / "out.mp4", progress=progress, **CALL)


def test_a_pipeline_that_is_let_go_while_it_works(folder: Path, pipe: ImageToVideo, picture: np.ndarray) -> None:
    held = [load(folder, device="cpu")]

    def progress(event: Progress) -> None:
        held.clear()
        gc.collect()

    assert held[0](picture, seed=1, progress=progress, **CALL).video == pipe(picture, seed=1, **CALL).video
    assert not held


def test_the_callers_gradients_and_threads_stay_as_they_are(pipe: ImageToVideo, picture: np.ndarray) -> None:
    seen: list[Any] = []
    pipe(picture, progress=lambda event: seen.append((torch.is_grad_enabled(), torch.get_num_threads())), **CALL)
    assert torch.is_grad_enabled()
    assert {threads for _, threads in seen} == {torch.get_num_threads()}
    with torch.inference_mode():
        wanted = pipe(picture, seed=1, **CALL).video
    assert pipe(picture, seed=1, **CALL).video == wanted


def in_a_fork(job: Callable[[], Any], seconds: float = 20) -> str:
    """What the job says in a child that is forked now."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        words = "nothing was raised"
        try:
            job()
        except BaseException as error:
            words = f"{type(error).__name__}: {error}"
        os.write(write, words.encode())
        os._exit(0)
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], seconds)
        return os.read(read, 10_000).decode() if ready else "it hangs"
    finally:
        os.close(read)
        if not ready:
            os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.parametrize("what", ["call", "list", "tensor", "second", "both"])
def test_a_forked_child_is_told_at_once(
    pipe: ImageToVideo, second: VideoToVideo, picture: np.ndarray, what: str
) -> None:
    pixels = torch.zeros(1, 3, 224, 224)  # made here: torch itself hangs in such a child
    jobs: dict[str, Callable[[], Any]] = {
        "call": lambda: pipe(picture, **CALL),
        "list": lambda: pipe([picture, picture], **CALL),
        "tensor": lambda: pipe.tensor(pixels, **CALL),
        "second": lambda: second(CLIP, steps=2),
        "both": lambda: Animation(pipe, second)(picture, first=CALL),
    }
    begun = time.monotonic()
    words = in_a_fork(jobs[what])
    assert words.startswith("ForkError: this pipeline was loaded by the process ")
    assert words.endswith("load the pipeline in the child, or start it with multiprocessing's 'spawn'")
    assert time.monotonic() - begun < 5


def made_elsewhere(folder: Path, picture: np.ndarray, threads: int, seed: int) -> bytes:
    """In another process: the same video of the same model."""
    torch.set_num_threads(threads)
    video: bytes = load(folder, device="cpu")(picture, seed=seed, **CALL).video
    return video


def test_spawned_workers(
    pipe: ImageToVideo, folder: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(Path(__file__).resolve().parents[2])
    monkeypatch.setattr(sys, "path", [root, *sys.path])  # which the workers are given
    jobs = [(folder, picture, torch.get_num_threads(), seed) for seed in range(2)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        videos = pool.starmap(made_elsewhere, jobs)
        pool.close()
        pool.join()
    assert videos == [pipe(picture, seed=seed, **CALL).video for seed in range(2)]
