"""Both stages in one call: a picture in, a large video out; the frames between them stay in memory, as decoded.

Given the two stages and what a call asks of each. It knows nothing of how they work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from i2vgen_ms.errors import ArgumentError, nearest
from i2vgen_ms.pipelines import arguments, delivery
from i2vgen_ms.pipelines.image_to_video import ImageToVideo
from i2vgen_ms.pipelines.video_to_video import VideoToVideo

SHARED = ("seed", "progress", "output_type")  # have the same meaning in the chain as in a stage
NAMES = (*SHARED, "text", "keep_first", "first", "second")
# Arguments of a stage that are the chain's own: what goes from stage to stage is not for the caller to change.
NOT_A_STAGES = ("output_type", "text")


class Animation:
    """Makes large videos from pictures with two models, which may be on different devices.

    Args:
        first: makes a video of a picture.
        second: makes that video larger and sharper.
    """

    def __init__(self, first: ImageToVideo, second: VideoToVideo) -> None:
        for stage, kind, name in ((first, ImageToVideo, "first"), (second, VideoToVideo, "second")):
            if not isinstance(stage, kind):
                raise ArgumentError(f"{name} must be a pipeline {kind.__name__}, not {stage!r:.80}")
        self.first, self.second = first, second

    def __call__(
        self,
        picture: Any,
        *,
        output: Any = None,
        output_type: str | None = None,
        text: str | None = None,
        keep_first: Any = None,
        first: Mapping[str, Any] | None = None,
        second: Mapping[str, Any] | None = None,
        seed: int | None = None,
        progress: Any = None,
    ) -> Any:
        """Makes a large video of a picture, or one of each of a list of pictures.

        Args:
            picture: as for the first stage.
            output, output_type: of the large video, as for every stage.
            text: what the video should show; only the second stage reads it.
            keep_first: a file for the first stage's video too; for a list one name, or a list of names, as `output`.
            first, second: more arguments of a call, by stage: first={'num_frames': 16}, second={'strength': 0.5}.
                fps 'source' of the second is the rate of the first.
            seed, progress: for both stages; without a seed each takes its configuration's. The stages' own win.
        Returns: the second stage's Result, or a list of them; `seed` is the one that the second stage used.
        Raises: as the stages. What is wrong with an argument of either, or with the place of the output, is found out
            before any work. The first stage's videos of a whole list are in memory (44 MB each, as published).
        """
        shared = {"seed": seed, "progress": progress}
        one = {**shared, **_checked("first", first, self.first.configuration.task)}
        two = {**shared, **_checked("second", second, self.second.configuration.task)}
        if not (text is None or isinstance(text, str)):
            raise ArgumentError(f"text must be a string, not {text!r:.80}")
        many = isinstance(picture, (list, tuple))
        count = len(picture) if many else 1
        begun, kind = self.first._begin(one, count), delivery.check_output_type(output_type)
        call = self.second._begin(two, count)
        if call.settings.output.fps == "source":
            two["fps"] = begun.settings.output.fps
            call = self.second._begin(two, count)
        wanted = delivery.targets(output, len(picture) if many else None)
        delivery.distinct([*wanted, *delivery.targets(keep_first, len(picture) if many else None)])
        # Opening the files is the stages' work; this finds places that cannot be written to.
        delivery.writers(call.settings.output, wanted, fps=call.fps, output_type=kind, seed=call.settings.seed)
        small = self.first(picture, output=keep_first, **{**one, "output_type": "pt"})
        clips = [result.tensor for result in small] if many else small.tensor
        return self.second(clips, output=output, output_type=kind, text=text, **two)


def _checked(name: str, given: Mapping[str, Any] | None, task: str) -> dict[str, Any]:
    """The arguments for one stage; ArgumentError for what is none of them."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ArgumentError(f"{name} must be a dict of arguments of that stage, not {given!r:.80}")
    known = [argument for argument in arguments.names(task) if argument not in NOT_A_STAGES]
    for argument in given:
        if argument in ("output", *NOT_A_STAGES):
            raise ArgumentError(f"{name}: give {argument!r} to the call itself")
        if argument not in known:
            raise ArgumentError(f"{name}: unknown argument {argument!r}; {nearest(str(argument), known)}")
    return dict(given)
