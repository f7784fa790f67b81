"""Small model folders, once a session, and one thread, so that runs can be compared bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.threads import one_thread as one_thread
from tests.training import small


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of image-to-video that is shown the first frame's latents."""
    return small.folder(tmp_path_factory.mktemp("first") / "model", "image-to-video")


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of video-to-video."""
    return small.folder(tmp_path_factory.mktemp("second") / "model", "video-to-video")
