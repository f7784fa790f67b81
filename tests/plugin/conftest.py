"""A small model in the published file formats, and modelscope, both once a session."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from i2vgen_ms import demo, random_model
from i2vgen_ms.config.data import configuration_folder

MODEL, REVISION = "damo/Image-to-Video", "v1.1.0"
SIZES: dict[str, Any] = {"max_frames": 2, "latent_hei": 8, "latent_wid": 8}
NETWORK = {"dim_mult": [1, 2], "num_res_blocks": 1, "attn_scales": [1.0, 0.5]}  # two levels, so that tests are quick


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random model, as a hub holds it."""
    described = json.loads((configuration_folder() / "demo/configuration.json").read_text())["model"]["model_cfg"]
    changes = {**SIZES, "UNet": {**described["UNet"], **NETWORK}}
    return random_model.make_random_model(tmp_path_factory.mktemp("hub") / "origin", changes)


@pytest.fixture(scope="session")
def picture() -> str:
    return str(demo.sample().path)


@pytest.fixture(scope="session")
def modelscope() -> SimpleNamespace:
    """What scripts import from modelscope. Its own warnings while it is imported are not ours to judge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from modelscope.models import Model
        from modelscope.outputs import OutputKeys
        from modelscope.pipelines import pipeline

    return SimpleNamespace(pipeline=pipeline, Model=Model, VIDEO=OutputKeys.OUTPUT_VIDEO)


@pytest.fixture(scope="session")
def pipe(modelscope: SimpleNamespace, origin: Path):
    """One pipeline, built from the folder."""
    return modelscope.pipeline(task="image-to-video", model=str(origin), device="cpu")


@pytest.fixture
def logged(modelscope: SimpleNamespace) -> Iterator[list[str]]:
    """Messages of level WARNING and above from modelscope's loggers."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Keep(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("modelscope", "modelscope_hub", "i2vgen_ms")]
    for logger in loggers:
        logger.addHandler(handler)
    yield messages
    for logger in loggers:
        logger.removeHandler(handler)
