"""Group I: the same seed, input and settings give the same bytes on the CPU, whatever came before."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from i2vgen_ms.errors import Cancelled, I2VGenError
from i2vgen_ms.pipelines import ImageToVideo, VideoToVideo, load
from tests.media.writers.samples import moving

pytestmark = [pytest.mark.hostile, pytest.mark.group("I"), pytest.mark.bounds(seconds=120)]

ROOT = Path(__file__).resolve().parents[2]
CALL: dict[str, Any] = {"steps": 3, "num_frames": 3}
TOLERANCE = 1e-5  # relative L2 of the frames between numbers of threads, and between batch and single


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def contents(place: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(place.iterdir())] if place.is_dir() else [place.read_bytes()]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm", "out.gif", "out.webp", "frames"])
def test_every_kind_of_file_is_the_same_again(
    pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path, name: str
) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        pipe(picture, output=tmp_path / folder / name, seed=7, **CALL)
    assert contents(tmp_path / "first" / name) == contents(tmp_path / "second" / name)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m_sde", "euler_a"])
def test_every_kind_of_sampler_is_the_same_again(
    pipe: ImageToVideo, second: VideoToVideo, picture: np.ndarray, sampler: str
) -> None:
    clip = moving(64, 32, 3)
    for each, source in ((pipe, picture), (second, clip)):
        one, other, different = (
            each(source, seed=seed, steps=3, sampler=sampler, output_type="pt").tensor for seed in (7, 7, 8)
        )
        assert torch.equal(one, other)
        assert not torch.equal(one, different)


RESTARTED = """
import sys
import numpy as np, torch
from i2vgen_ms.pipelines import load
from tests.hostile.test_determinism import CALL
model, source, target, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
load(model, device="cpu")(np.load(source), output=target, seed=7, progress=False, **CALL)
"""


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_another_process_makes_the_same_bytes(
    pipe: ImageToVideo,
    folder: Path,
    picture: np.ndarray,
    tmp_path: Path,
    hash_seed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    np.save(tmp_path / "picture.npy", picture)
    monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
    threads = str(torch.get_num_threads())
    arguments = [sys.executable, "-c", RESTARTED, folder, tmp_path / "picture.npy", tmp_path / "out.mp4", threads]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.mp4").read_bytes() == pipe(picture, seed=7, **CALL).video


def test_the_number_of_threads_is_a_matter_of_rounding(
    pipe: ImageToVideo, second: VideoToVideo, picture: np.ndarray
) -> None:
    before = torch.get_num_threads()
    made: dict[int, list[torch.Tensor]] = {}
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            now = [
                pipe(picture, seed=7, output_type="pt", **CALL).tensor,
                second(moving(64, 32, 3), seed=7, steps=3, output_type="pt").tensor,
            ]
            for one, other in zip(made.get(threads, now), now, strict=True):
                assert torch.equal(one, other)
            made[threads] = now
    finally:
        torch.set_num_threads(before)
    assert max(apart(two, one) for one, two in zip(made[1], made[2], strict=True)) < TOLERANCE


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_batch_gives_what_its_items_give_alone(pipe: ImageToVideo, picture: np.ndarray, size: int) -> None:
    sources = [picture, picture[::-1], picture[:, ::-1]]
    alone = [pipe(source, seed=7, output_type="pt", **CALL).tensor for source in sources]
    batch = [one.tensor for one in pipe(sources, seed=7, output_type="pt", batch_size=size, **CALL)]
    for one, other in zip(batch, alone, strict=True):
        assert apart(one, other) < TOLERANCE
        assert size > 1 or torch.equal(one, other)


def test_the_order_of_a_list_does_not_matter(pipe: ImageToVideo, second: VideoToVideo, picture: np.ndarray) -> None:
    pictures = [picture, picture[::-1], picture[:, ::-1]]
    there = [one.video for one in pipe(pictures, seed=7, **CALL)]
    back = [one.video for one in pipe(pictures[::-1], seed=7, **CALL)]
    assert there == back[::-1]
    clips = [moving(64, 32, 3), moving(32, 32, 2), moving(64, 32, 4)]
    there = [one.video for one in second(clips, seed=7, steps=2)]
    assert there == [one.video for one in second(clips[::-1], seed=7, steps=2)][::-1]


def test_a_call_without_a_seed_says_which_it_took(pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path) -> None:
    result = pipe(picture, output=tmp_path / "out.mp4", seed=None, **CALL)
    assert result.seed == pipe.configuration.seed
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["comment"] == f"i2vgen_ms seed={result.seed}"
    assert pipe(picture, seed=result.seed, **CALL).video == (tmp_path / "out.mp4").read_bytes()


@pytest.mark.parametrize("fault", ["cancelled", "memory", "no picture", "non-finite"])
def test_after_an_error_the_next_call_is_the_same(
    pipe: ImageToVideo, picture: np.ndarray, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = pipe(picture, seed=7, **CALL).video

    def fails(*_: Any, **__: Any) -> Any:
        raise MemoryError

    call: dict[str, Any] = {"seed": 9, **CALL}
    if fault == "cancelled":
        call["progress"] = lambda event: False
    if fault == "memory":
        monkeypatch.setattr(pipe.networks.autoencoder, "decode", fails)
    if fault == "non-finite":
        call["latents"] = torch.full((1, 4, 3, 4, 8), 1e38)
    with pytest.raises((Cancelled, I2VGenError)):
        pipe(b"" if fault == "no picture" else picture, **call)
    monkeypatch.undo()
    assert pipe(picture, seed=7, **CALL).video == wanted


def test_the_global_random_state_plays_no_part(pipe: ImageToVideo, second: VideoToVideo, picture: np.ndarray) -> None:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    videos = set()
    try:
        for seed in (1, 2):
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            videos.add((pipe(picture, seed=7, **CALL).video, second(moving(64, 32, 3), seed=7, steps=2).video))
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
    assert len(videos) == 1


def test_another_pipeline_of_the_model_makes_the_same(pipe: ImageToVideo, folder: Path, picture: np.ndarray) -> None:
    other = load(folder, device="cpu", cache=True)
    assert other(picture, seed=7, **CALL).video == pipe(picture, seed=7, **CALL).video


def test_deterministic_algorithms_may_be_asked_for(pipe: ImageToVideo, picture: np.ndarray) -> None:
    wanted = pipe(picture, seed=7, **CALL).video
    torch.use_deterministic_algorithms(True)
    try:
        assert pipe(picture, seed=7, **CALL).video == wanted
    finally:
        torch.use_deterministic_algorithms(False)
