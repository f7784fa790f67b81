"""The small first stage of whole folders of tests, whose conftest.py imports these fixtures: random weights in the
published formats, the pipeline, and a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i2vgen_ms.pipelines import ImageToVideo, load
from i2vgen_ms.random_model import make_random_model

# Small enough for a step in a tenth of a second; what a test needs otherwise it asks for in the call.
SIZES: dict[str, Any] = {"max_frames": 3, "latent_hei": 4, "latent_wid": 8}


@pytest.fixture(scope="package")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which it is remembered which files were checked: not the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("I2VGEN_MS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    return make_random_model(tmp_path_factory.mktemp("model"), SIZES)


@pytest.fixture(scope="package")
def pipe(folder: Path) -> ImageToVideo:
    return load(folder, device="cpu")


@pytest.fixture(scope="package")
def picture() -> np.ndarray:
    """A picture with a different colour in every corner."""
    y, x = np.mgrid[0:90, 0:160]
    return np.stack([x * 255 // 160, y * 255 // 90, 255 - x * 255 // 160], axis=-1).astype(np.uint8)
