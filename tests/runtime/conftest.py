"""A device with little memory, which is memory of the host."""

from __future__ import annotations

import pytest

from i2vgen_ms.runtime import residency
from tests.runtime.small import Device


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(residency, "free_bytes", device.free_bytes)
    return device
