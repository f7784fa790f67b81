"""What several groups share: a small model, its pipeline, a picture, and words about what a call leaves behind."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

from i2vgen_ms.pipelines import VideoToVideo, load
from tests import second_stage

QUICK: dict[str, Any] = {"steps": 2, "seed": 1}  # what a call is given that only has to come to its end


@pytest.fixture(scope="package")
def second(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> VideoToVideo:
    """A pipeline of the second stage, on the CPU."""
    return load(second_stage.make(tmp_path_factory.mktemp("second"), latent_hei=4, latent_wid=8), device="cpu")


def warm_up() -> None:
    """Uses once what opens something for the life of the process."""
    torch.randn(600, 600) @ torch.randn(600, 600)
    with tqdm(range(2), file=io.StringIO()) as bar:  # its monitor is one thread a process
        list(bar)
    resource_tracker.ensure_running()
    thread = threading.Thread(target=torch.get_num_threads)
    thread.start()
    thread.join()


def tree(place: Path) -> set[str]:
    """Everything below a folder, hidden files too, as names relative to it."""
    return {str(path.relative_to(place)) for path in place.rglob("*")}


@contextlib.contextmanager
def leaves(place: Path, *names: str) -> Iterator[None]:
    """What the block creates below `place` is exactly `names`, and nothing goes away; checked after an error too."""
    before = tree(place)
    try:
        yield
    finally:
        after = tree(place)
        assert after - before == set(names) - before, f"left behind: {sorted(after - before)}, expected: {names}"
        assert before <= after, f"gone: {sorted(before - after)}"


def copy_of(model: Path, to: Path) -> Path:
    """A model folder of one's own: its weight files are the same ones (hard links), its configuration is a copy."""
    to.mkdir(parents=True)
    for source in model.iterdir():
        if source.suffix == ".json":
            (to / source.name).write_bytes(source.read_bytes())
        else:
            os.link(source, to / source.name)
    return to


def put(path: Path, content: bytes) -> Path:
    """A new file in place of the one at `path`, which may be a hard link of a file that others use."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path
