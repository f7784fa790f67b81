"""ModelScope's model and pipeline classes of image-to-video.

Given pictures in ModelScope's shapes; with `refine` the videos are made larger and sharper by a second model before
they are written. What is not about pictures stands in StageModel and StagePipeline.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from i2vgen_ms import pipelines
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.pipelines.chain import NAMES, SHARED, Animation
from i2vgen_ms.plugin.device import placed
from i2vgen_ms.plugin.model import StageModel
from i2vgen_ms.plugin.pipeline import StagePipeline
from i2vgen_ms.plugin.video_to_video import VideoToVideo, VideoToVideoPipeline
from i2vgen_ms.runtime.device import choose


class ImageToVideo(StageModel):
    """The image-to-video model of one folder; arguments as StageModel's."""

    TASK = "image-to-video"

    def forward(self, input: Mapping[str, Tensor], **call: Any) -> Tensor:
        """The videos of prepared pictures.

        Args:
            input: {'vit_frame': normalised pictures `b 3 s s`}, as `clip_encoder.preprocess` makes them.
            call: arguments of a call, such as seed and steps.
        Returns: fp32 `b c f h w` on the CPU, near [-1, 1].
        Raises: ArgumentError; everything that a call may raise.
        """
        frames = input.get("vit_frame") if isinstance(input, Mapping) else None
        if not isinstance(frames, Tensor) or frames.ndim != 4:
            raise ArgumentError("the model takes {'vit_frame': tensor b 3 s s}; for pictures call the pipeline")
        return self.core.tensor(frames, **{**self.defaults, **call})


class ImageToVideoPipeline(StagePipeline):
    """Videos from pictures.

    >>> from modelscope.pipelines import pipeline
    >>> pipe = pipeline(task='image-to-video', model='damo/Image-to-Video', model_revision='v1.1.0')
    >>> pipe('picture.jpg', output_video='video.mp4', seed=1)
    {'output_video': 'video.mp4', 'seed': 1}

    A picture is a path, a URL, a PIL image, bytes, an array, a tensor or a file object. With `refine` a call takes the
    arguments of `i2vgen_ms.pipelines.Animation`: text, keep_first, first, second, seed, progress, output_type.

    Args:
        model, device, cache, preprocessor, settings: see StagePipeline; with refine, settings are those of the first
            stage, and seed, progress and output_type are also the second's.
        refine: the model of the second stage: a folder (in `pipeline()` an id too), a VideoToVideo of this package,
            or a VideoToVideoPipeline; the values that it was given for its calls are kept.
        refine_device: where a second stage given as a folder works; without it where the first does.
    """

    group_key = "image-to-video"
    MODEL = ImageToVideo
    KEY = "picture"
    EXPECTED = ("a picture", "path, URL, PIL image, bytes, array, tensor, file object")
    KINDS = (*StagePipeline.KINDS, Image.Image)

    def __init__(
        self,
        model: str | os.PathLike[str] | StageModel,
        *,
        refine: Any = None,
        refine_device: str | torch.device | None = None,
        **given: Any,
    ) -> None:
        if refine is None and refine_device is not None:
            raise ArgumentError("refine_device is where the model of refine works, and refine is not given")
        super().__init__(model, **given)
        self._second_defaults: dict[str, Any] = {}
        if refine is None:
            return
        loading: dict[str, Any] = {name: given[name] for name in ("dtype", "cache") if name in given}
        second, defaults = _second(refine, refine_device, str(self.model.device), loading)
        mine = {**self.defaults, **{name: given[name] for name in SHARED if name in given}}
        self._first_defaults = {name: value for name, value in mine.items() if name not in SHARED}
        self._second_defaults = {name: defaults[name] for name in defaults if name not in ("text", "output_type")}
        self.defaults = {name: mine[name] for name in SHARED if name in mine}
        self.defaults |= {"text": defaults["text"]} if "text" in defaults else {}
        self.work, self.names = Animation(self.model.core, second), NAMES

    def _with_defaults(self, call: Mapping[str, Any]) -> dict[str, Any]:
        merged = super()._with_defaults(call)
        if isinstance(self.work, Animation):
            for name, defaults in (("first", self._first_defaults), ("second", self._second_defaults)):
                if merged.get(name) is None:
                    merged[name] = defaults
                elif isinstance(merged[name], Mapping):  # anything else is refused where it is used
                    merged[name] = {**defaults, **merged[name]}
        return merged


def _second(
    refine: Any, device: str | torch.device | None, beside: str, loading: dict[str, Any]
) -> tuple[pipelines.VideoToVideo, dict[str, Any]]:
    """The second stage, and its own values for every call."""
    if isinstance(refine, (str, os.PathLike)):
        model = VideoToVideo(refine, device=beside if device is None else device, **loading)
        return model.core, model.defaults
    place = placed(device)
    if isinstance(refine, VideoToVideoPipeline):
        core, defaults = refine.model.core, refine.defaults
    elif isinstance(refine, VideoToVideo):
        core, defaults = refine.core, refine.defaults
    else:
        raise ArgumentError(
            f"refine is a model's id, a folder, a VideoToVideo or a VideoToVideoPipeline, not {refine!r:.80}"
        )
    if place is not None and choose(place) != core.device:
        raise ArgumentError(f"the model of refine is on {core.device}, not on {place}; load it there instead")
    return core, defaults
