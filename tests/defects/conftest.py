"""The smallest random model folders in the published formats, one a stage, and their pipelines, for this folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from i2vgen_ms.config.data import configuration_folder
from i2vgen_ms.pipelines import ImageToVideo, VideoToVideo, load
from i2vgen_ms.random_model import make_random_model
from tests import second_stage
from tests.threads import one_thread as one_thread

SIZES: dict[str, Any] = {"max_frames": 2, "latent_hei": 2, "latent_wid": 4}
NETWORK = {"dim_mult": [1, 2], "num_res_blocks": 1, "attn_scales": [1.0]}


def make(folder: Path, *, seed: int = 0, **sizes: int) -> Path:
    """A model folder of two levels, two frames of 32x16 unless told otherwise."""
    described = json.loads((configuration_folder() / "demo/configuration.json").read_text())["model"]["model_cfg"]
    return make_random_model(folder, {**SIZES, **sizes, "UNet": {**described["UNet"], **NETWORK}}, seed=seed)


def make_second(folder: Path, *, seed: int = 0, **sizes: int) -> Path:
    """The same of the second stage."""
    return second_stage.make(folder, seed=seed, **{**SIZES, **sizes})


class Job(NamedTuple):
    """A stage with what it makes a video of: for defects that both stages have."""

    pipe: Any
    source: Any
    folder: Path
    make: Callable[..., Path]


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("defects") / "model")


@pytest.fixture(scope="package")
def pipe(folder: Path) -> ImageToVideo:
    """One pipeline for the tests that change nothing in it."""
    return load(folder, device="cpu")


@pytest.fixture(scope="package")
def picture() -> np.ndarray:
    """Three times as wide as high, and different everywhere."""
    y, x = np.mgrid[0:40, 0:120]
    return np.stack([x * 2, y * 6, 255 - x * 2], axis=-1).astype(np.uint8)


@pytest.fixture(scope="package")
def second_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_second(tmp_path_factory.mktemp("defects") / "second")


@pytest.fixture(scope="package")
def second(second_folder: Path) -> VideoToVideo:
    """The second stage, for tests that change nothing in it."""
    pipe = load(second_folder, device="cpu")
    assert isinstance(pipe, VideoToVideo)
    return pipe


@pytest.fixture(scope="package")
def clip() -> np.ndarray:
    """Two frames of 40x20, twice as wide as high, each pixel of another colour."""
    f, y, x = np.mgrid[0:2, 0:20, 0:40]
    return np.stack([x * 6, y * 12, 255 - x * 3 - f * 100], axis=-1).astype(np.uint8)


@pytest.fixture(params=["image-to-video", "video-to-video"])
def job(request: pytest.FixtureRequest) -> Job:
    """Both stages, one after the other."""
    first = request.param == "image-to-video"
    names = ("pipe", "picture", "folder") if first else ("second", "clip", "second_folder")
    pipe, source, folder = (request.getfixturevalue(name) for name in names)
    return Job(pipe, source, folder, make if first else make_second)
