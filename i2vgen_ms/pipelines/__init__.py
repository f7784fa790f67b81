"""Whole jobs: a model folder and a picture in, a video out."""

from i2vgen_ms.pipelines.image_to_video import ImageToVideo
from i2vgen_ms.pipelines.loading import load
from i2vgen_ms.pipelines.progress import Progress
from i2vgen_ms.pipelines.result import Result

__all__ = ["ImageToVideo", "Progress", "Result", "load"]
