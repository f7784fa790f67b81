"""ModelScope's model and pipeline classes of video-to-video.

Given clips, with a text or without, in ModelScope's shapes. What is not about clips stands in StageModel and
StagePipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from torch import Tensor

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.plugin.model import StageModel
from i2vgen_ms.plugin.pipeline import StagePipeline


class VideoToVideo(StageModel):
    """The video-to-video model of one folder; arguments as StageModel's."""

    TASK = "video-to-video"

    def forward(self, input: Mapping[str, Any], **call: Any) -> Tensor:
        """The new video of one prepared clip.

        Args:
            input: {'video_data': frames `f c h w` in [-1, 1], RGB, 'text': what the video should show; '' without it}.
            call: arguments of a call, such as seed and steps.
        Returns: fp32 `b c f h w` with b = 1 on the CPU, near [-1, 1].
        Raises: ArgumentError, also for a text that was encoded already; everything that a call may raise.
        """
        frames = input.get("video_data") if isinstance(input, Mapping) else None
        if not isinstance(frames, Tensor) or frames.ndim != 4 or frames.shape[1] != 3:
            raise ArgumentError(
                "the model takes {'video_data': tensor f 3 h w, 'text': str}; for files call the pipeline"
            )
        if isinstance(input.get("y"), Tensor):  # published: the encoded text
            raise ArgumentError("'y': the model encodes the text itself; give 'text', a string, instead")
        given = {**self.defaults, **call}
        text = input.get("text", input.get("y"))
        if text is not None:
            given["text"] = text
        return self.core.tensor(rearrange(frames, "f c h w -> f h w c"), **given)[None]


class VideoToVideoPipeline(StagePipeline):
    """Larger, sharper videos from clips.

    >>> from modelscope.pipelines import pipeline
    >>> pipe = pipeline(task='video-to-video', model='damo/Video-to-Video', model_revision='v1.1.0')
    >>> pipe({'video_path': 'video.mp4', 'text': 'a boat'}, output_video='large.mp4', seed=1)
    {'output_video': 'large.mp4', 'seed': 1}

    A clip is a path, a URL, bytes, a file object, an array or a tensor; alone (then `text` is an argument of the call)
    or as 'video_path' of such a dict, whose 'text' may be left out. Arguments as StagePipeline's.
    """

    group_key = "video-to-video"
    MODEL = VideoToVideo
    KEY = "video"
    EXPECTED = ("a clip", "path, URL, bytes, array, tensor, file object, or {'video_path': one of these, 'text': str}")
    KINDS = (*StagePipeline.KINDS, dict)
