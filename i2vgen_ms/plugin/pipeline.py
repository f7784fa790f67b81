"""What ModelScope's pipeline classes of both tasks share.

Given a model folder (or a built model) and ModelScope's arguments. It routes the arguments, which the core checks, and
names the results as ModelScope does. Several inputs, batches and files are the core's work, not the base class's,
which would write every result of a list to one file. The subclasses say what an input is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from modelscope.outputs import TASK_OUTPUTS, OutputKeys
from modelscope.pipelines.base import Pipeline

from i2vgen_ms.errors import ArgumentError, I2VGenError, nearest
from i2vgen_ms.pipelines import Result, arguments
from i2vgen_ms.plugin.device import placed
from i2vgen_ms.plugin.model import StageModel
from i2vgen_ms.plugin.served import check_served
from i2vgen_ms.runtime.device import choose

OUTPUT = "output_video"


class StagePipeline(Pipeline):
    """Videos from what a stage is given.

    Args:
        model: a model folder, or a model of the subclass's MODEL.
        device: see StageModel.
        cache, compile, lora, lora_scale, limits: see StageModel.
        preprocessor: a callable that changes each input before it is used; none by default.
        settings: dtype, or any argument of a call, as this pipeline's value for every call.
    """

    MODEL: ClassVar[type[StageModel]]
    KEY: ClassVar[str]  # of an input between preprocess and forward
    EXPECTED: ClassVar[tuple[str, str]]  # what an input is, and in which forms, for errors
    KINDS: ClassVar[tuple[type, ...]] = (
        *(str, os.PathLike, bytes, bytearray, memoryview),
        *(np.ndarray, torch.Tensor),
    )

    def __init__(
        self,
        model: str | os.PathLike[str] | StageModel,
        *,
        device: str | torch.device | None = None,
        preprocessor: Any = None,
        trust_remote_code: bool = False,  # ModelScope's; no code of a model's folder is ever run
        compile: bool | None = None,
        cache: bool = False,
        lora: str | os.PathLike[str] | None = None,
        lora_scale: float = 1.0,
        limits: Any = None,
        **settings: Any,
    ) -> None:
        _check_names(settings, arguments.names(self.MODEL.TASK))
        place = placed(device)
        if not isinstance(model, self.MODEL):
            model = self.MODEL(
                model,
                device=place,
                cache=cache,
                compile=compile,
                lora=lora,
                lora_scale=lora_scale,
                limits=limits,
                **settings,
            )
            settings = {}
        elif lora is not None or limits is not None or compile is not None:
            raise ArgumentError("the model is loaded already; give compile, lora and limits to the model instead")
        elif place is not None and choose(place) != model.device:
            raise ArgumentError(f"the model is on {model.device}, not on {place}; give the device to the model instead")
        self.defaults = {**model.defaults, **settings}
        super().__init__(
            model=model, device=str(model.device), preprocessor=preprocessor or _unchanged, auto_collate=False
        )
        self.work: Any = model.core
        self.names = arguments.names(self.MODEL.TASK)
        self._model_prepare = True  # the networks are where they belong

    def __call__(self, input: Any, *args: Any, **call: Any) -> Any:
        """Makes a video of one input, or one of each of a list; the arguments are those of the core's call.

        Args:
            input: see the subclass.
            output_video: the file; its suffix chooses the format. None: the result holds the bytes of an MP4. For a
                list one name, which gives name_0.mp4, name_1.mp4, ..., or a list of names.
            call: output_type ('video', 'frames', 'pt'), seed, steps, progress, ...; see `i2vgen_ms.pipelines`.
        Returns: a dict, or a list of dicts: OutputKeys.OUTPUT_VIDEO is the path, the bytes, uint8 frames `f h w c` or
            an fp32 tensor `c f h w`; 'seed' is the seed that was used; beside arrays 'path' is the file, if any.
        Raises: ArgumentError, MediaError, OutputError and the other errors of the package. Nothing is half-written.
        """
        if args:
            raise ArgumentError(
                f"one input is expected, then named arguments; put several inputs into a list: {args!r}"
            )
        check_served(input, call)
        prepare, run, finish = self._sanitize_parameters(**self._with_defaults(call))
        many = isinstance(input, (list, tuple))
        prepared = [self.preprocess(one, **prepare)[self.KEY] for one in (input if many else [input])]
        results = self.forward({self.KEY: prepared if many else prepared[0]}, **run)["result"]
        outputs = []
        for result in results if many else [results]:
            output = self.postprocess({"result": result}, **finish)
            self._check_output(output)
            outputs.append(output)
        return outputs if many else outputs[0]

    def _with_defaults(self, call: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.defaults, **call}

    def _sanitize_parameters(self, **call: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Every argument belongs to the run; an unknown one raises ArgumentError."""
        _check_names(call, (OUTPUT, *self.names))
        return {}, {("output" if name == OUTPUT else name): value for name, value in call.items()}, {}

    def preprocess(self, input: Any, **parameters: Any) -> dict[str, Any]:
        """{KEY: the checked input after the pipeline's preprocessor}; it is read when its turn comes."""
        self._check_input(input)
        return {self.KEY: self.preprocessor(input, **parameters)}

    def forward(self, inputs: Mapping[str, Any], **parameters: Any) -> dict[str, Any]:
        """{'result': a `Result`, or a list of them} of {KEY: an input, or a list of them}."""
        return {"result": self.work(inputs[self.KEY], **parameters)}

    def postprocess(self, inputs: Mapping[str, Any], **parameters: Any) -> dict[str, Any]:
        """ModelScope's dict of one {'result': Result}."""
        result: Result = inputs["result"]
        arrays = result.frames if result.frames is not None else result.tensor
        if arrays is None:
            return {OutputKeys.OUTPUT_VIDEO: result.video if result.path is None else result.path, "seed": result.seed}
        path = {} if result.path is None else {"path": result.path}
        return {OutputKeys.OUTPUT_VIDEO: arrays, "seed": result.seed, **path}

    def initiate_single_model(self, model: Any, **kwargs: Any) -> Any:
        """The base class would build it again from its folder."""
        return model

    def _check_input(self, input: Any) -> None:
        if not (isinstance(input, self.KINDS) or hasattr(input, "read")):
            what, forms = self.EXPECTED
            raise ArgumentError(f"{what} is expected ({forms}), not {input!r:.80}")

    def _check_output(self, input: Mapping[str, Any]) -> None:
        missing = [key for key in TASK_OUTPUTS[self.group_key] if key not in input]
        if missing:
            raise I2VGenError(f"the result lacks {', '.join(missing)}; postprocess must return it")


def _check_names(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise ArgumentError(f"unknown argument {name!r}; {nearest(name, known)}")


def _unchanged(input: Any) -> Any:
    return input
