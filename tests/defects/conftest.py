"""The smallest random model folder in the published formats, and its pipeline, for all tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms.config.data import configuration_folder
from i2vgen_ms.demo import make_random_model
from i2vgen_ms.pipelines import ImageToVideo, load

SIZES: dict[str, Any] = {"max_frames": 2, "latent_hei": 2, "latent_wid": 4}
NETWORK = {"dim_mult": [1, 2], "num_res_blocks": 1, "attn_scales": [1.0]}


def make(folder: Path, *, seed: int = 0, **sizes: int) -> Path:
    """A model folder of two levels, two frames of 32x16 unless told otherwise."""
    described = json.loads((configuration_folder() / "demo/configuration.json").read_text())["model"]["model_cfg"]
    return make_random_model(folder, {**SIZES, **sizes, "UNet": {**described["UNet"], **NETWORK}}, seed=seed)


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
