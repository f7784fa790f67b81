"""One small random model folder in the published formats, and its pipeline, for all tests of this folder."""

from __future__ import annotations

from tests.first_stage import cache, folder, picture, pipe  # noqa: F401 - fixtures of every test
