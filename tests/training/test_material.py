"""The clips of a run: what cannot be had is found out before its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.training import Trainer
from i2vgen_ms.training.data import files
from tests.training import small
from tests.training.data.conftest import video

CLIPS = {"frames": [2], "fps": [8], "sizes": [[32, 16]], "pictures_every": 0}
WORLD = {"kind": "world", "seed": 1, "split": "x", "scenes": None, "shapes": None, "pairs": None, "cameras": None}


def data(folder: Path, held_out: int = 0) -> dict[str, Any]:
    return {"kind": "files", "path": str(folder), "workers": 0, "cache": None, "held_out": held_out}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of eight frames, and a picture."""
    place = tmp_path_factory.mktemp("clips")
    video(place / "a.mp4", 0, frames=8)
    Image.new("RGB", (64, 32), (9, 99, 200)).save(place / "p.png")
    return place


def test_a_pool_holds_clips_of_every_size(first, tmp_path) -> None:
    clips = CLIPS | {"sizes": [[32, 16], [16, 16]], "pictures_every": 3}
    pool = WORLD | {"pool": 3, "workers": 0}
    settings = small.settings("small-image-to-video", first, tmp_path / "run", data=pool, clips=clips)
    Trainer(settings.replace("length.steps", 6), device="cpu", progress=False).train()
    assert len(small.log(tmp_path / "run")) == 6


def test_clips_that_no_file_holds_are_found_out_before_the_first_step(first, folder, tmp_path) -> None:
    clips = CLIPS | {"frames": [2, 32]}
    settings = small.settings("small-image-to-video", first, tmp_path / "run", data=data(folder), clips=clips)
    with pytest.raises(ConfigurationError, match="none of the 2 files is a video of 32 frames at 8 a second"):
        Trainer(settings, device="cpu", progress=False).train()
    assert not (tmp_path / "run").exists()
    phases = [{"share": 0.5, "rate": 1.0, "data": None}, {"share": 0.5, "rate": 1.0, "data": data(folder, 1)}]
    world = WORLD | {"pool": None, "workers": 0}
    settings = small.settings("small-image-to-video", first, tmp_path / "run", data=world, phases=phases, clips=CLIPS)
    with pytest.raises(ConfigurationError, match=r"none of the 1 files to train on is a video .* \(data\.held_out\)"):
        Trainer(settings, device="cpu", progress=False).train()
    assert not (tmp_path / "run").exists()


def test_files_are_looked_into_once_a_run(first, folder, tmp_path, monkeypatch) -> None:
    looks, look = [], files.look
    monkeypatch.setattr(files, "look", lambda found: looks.append(1) or look(found))
    settings = small.settings("small-image-to-video", first, tmp_path / "run", data=data(folder), clips=CLIPS)
    Trainer(settings.replace("length.steps", 2), device="cpu", progress=False).train()
    assert len(looks) == 1


def test_a_size_that_does_not_pass_the_network_is_named(first, tmp_path) -> None:
    clips = CLIPS | {"sizes": [[32, 16], [40, 24]]}
    with pytest.raises(ConfigurationError, match=r"clips\.sizes: .* no clips of 40x24; the next size .* is 48x32"):
        Trainer(small.settings("small-image-to-video", first, tmp_path, clips=clips), device="cpu")
