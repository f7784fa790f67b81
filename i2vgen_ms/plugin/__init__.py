"""The ModelScope face: its classes for image-to-video and video-to-video, built on `i2vgen_ms.pipelines`.

ModelScope imports this module when one of the classes is needed (its class index names it, see `i2vgen_ms.activation`);
importing it puts them into ModelScope's registries, in place of the published ones.
"""

from modelscope.models.builder import MODELS
from modelscope.pipelines.builder import PIPELINES

from i2vgen_ms.plugin.device import DeviceWarning
from i2vgen_ms.plugin.image_to_video import ImageToVideo, ImageToVideoPipeline
from i2vgen_ms.plugin.settings import Settings
from i2vgen_ms.plugin.video_to_video import VideoToVideo, VideoToVideoPipeline

__all__ = [
    "DeviceWarning",
    "ImageToVideo",
    "ImageToVideoPipeline",
    "Settings",
    "VideoToVideo",
    "VideoToVideoPipeline",
]

for _registry, _task, _name, _class in (
    (MODELS, "image-to-video", "image-to-video-model", ImageToVideo),
    (MODELS, "video-to-video", "video-to-video-model", VideoToVideo),
    (PIPELINES, "image-to-video", "image-to-video-task-pipeline", ImageToVideoPipeline),
    (PIPELINES, "video-to-video", "video-to-video-pipeline", VideoToVideoPipeline),
):
    _registry.register_module(_task, module_name=_name, module_cls=_class, force=True)
