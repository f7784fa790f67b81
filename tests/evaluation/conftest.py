"""A classifier small enough to be trained for a test."""

from __future__ import annotations

from typing import Any

import pytest

from i2vgen_ms.evaluation.classifier import Classifier, Settings, read_settings
from i2vgen_ms.evaluation.classifier_training import train

TINY: dict[str, Any] = {"height": 16, "width": 32, "channels": [12, 24], "norm_groups": 4, "places": 4, "moments": 3}
SHORT: dict[str, Any] = {"batch": 8, "frames": 4, "fps": 4, "held_out_clips": 20}


@pytest.fixture(scope="package")
def settings() -> Settings:
    values = read_settings().model_dump()
    values["network"] |= TINY | {"features": 16}
    values["training"] |= SHORT
    return Settings.model_validate(values)


@pytest.fixture(scope="package")
def trained(settings: Settings) -> tuple[Classifier, dict[str, Any]]:
    return train(settings, device="cpu", steps=100)
