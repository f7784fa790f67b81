"""Whole jobs: a model folder and a picture or a clip in, a video out."""

from i2vgen_ms.pipelines.chain import Animation
from i2vgen_ms.pipelines.image_to_video import ImageToVideo
from i2vgen_ms.pipelines.loading import load
from i2vgen_ms.pipelines.progress import Progress
from i2vgen_ms.pipelines.result import Result
from i2vgen_ms.pipelines.video_to_video import ClipWarning, VideoToVideo
from i2vgen_ms.runtime.memory import MemoryWarning

__all__ = ["Animation", "ClipWarning", "ImageToVideo", "MemoryWarning", "Progress", "Result", "VideoToVideo", "load"]
