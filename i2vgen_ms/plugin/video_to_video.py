"""Names of the video-to-video classes, which this version does not have. They say so instead of running other code."""

from __future__ import annotations

from typing import Any, NoReturn

from modelscope.models.base import TorchModel
from modelscope.pipelines.base import Pipeline

from i2vgen_ms.errors import ConfigurationError


class NotInThisVersion:
    """Base of a class that cannot be built yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.refuse()

    @staticmethod
    def refuse() -> NoReturn:
        """Raises ConfigurationError."""
        from i2vgen_ms import __version__

        raise ConfigurationError(
            f"the task 'video-to-video' is not in this version of i2vgen_ms ({__version__}), and the published class "
            "would fail; use a later version, or do not import i2vgen_ms"
        )


class VideoToVideo(NotInThisVersion, TorchModel):
    """The model class of video-to-video."""


class VideoToVideoPipeline(NotInThisVersion, Pipeline):
    """The pipeline class of video-to-video."""
