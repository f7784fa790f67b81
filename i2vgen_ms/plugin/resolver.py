"""What ModelScope's `pipeline` and `Model.from_pretrained` do for the models of this package's tasks.

An id becomes a folder before anything is asked of the network, and the class is built from the folder at once: nothing
of a repository is imported or installed, whatever its configuration.json says about plugins. Models that turn out to be
of another kind go back to ModelScope's own functions.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelscope.models.builder import MODELS
from modelscope.pipelines.builder import PIPELINES

from i2vgen_ms import hub
from i2vgen_ms.activation import DEFAULT_MODELS, SIGNATURES
from i2vgen_ms.errors import ArgumentError, ConfigurationError

TASK_OF_PIPELINE = {kind: task for task, (kind, _) in DEFAULT_MODELS.items()}
MODEL_TYPES = {task: name for registry, task, name in SIGNATURES if registry == "MODELS"}
# Arguments of ModelScope's functions that steer what is not done here: running code, trying models of other libraries.
WITHOUT_EFFECT = ("trust_remote_code", "framework", "third_party", "external_engine_for_llm", "llm_framework")
OF_LOADING = ("model_prefetched", "invoked_by", "task", "use_hf")


def pipeline(published: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """The pipeline for a call of ModelScope's `pipeline` with one of our tasks; `given` are its bound arguments."""
    arguments = {**given, **given.get("kwargs", {})}
    arguments.pop("kwargs", None)
    as_given = dict(arguments)
    name = arguments.pop("pipeline_name", None)
    task = arguments.pop("task", None) or TASK_OF_PIPELINE[name]
    builder = PIPELINES.get(name or DEFAULT_MODELS[task][0], task)
    model = _single(arguments.pop("model", None), task)
    revision = arguments.pop("model_revision", None)
    local = bool(arguments.pop("local_files_only", False))
    if arguments.pop("config_file", None) is not None:
        raise ArgumentError("config_file is not supported; change the configuration.json in the model's folder")
    ignore = arguments.pop("ignore_file_pattern", None)
    for unused in WITHOUT_EFFECT:
        arguments.pop(unused, None)
    if isinstance(model, (str, os.PathLike)):
        folder = None
        with contextlib.suppress(hub.NotOursError):
            folder = hub.resolve(model, revision, local_files_only=local, ignore=ignore)
        if folder is None:
            return published(**as_given)
        _check_task(folder, task)
        model = str(folder)
    refine, refine_revision = arguments.get("refine"), arguments.pop("refine_revision", None)
    if isinstance(refine, (str, os.PathLike)) and task == "image-to-video":
        folder = hub.resolve(refine, refine_revision, local_files_only=local, ignore=ignore)
        _check_task(folder, "video-to-video")
        arguments["refine"] = str(folder)
    return builder(model=model, **arguments)


def from_pretrained(
    cls: type,
    model_name_or_path: str | os.PathLike[str],
    revision: str | None = None,
    cfg_dict: Any = None,
    device: Any = None,
    trust_remote_code: bool = False,
    *,
    local_files_only: bool = False,
    torch_dtype: Any = None,
    **settings: Any,
) -> Any:
    """The model for a call of `Model.from_pretrained` with a model of ours."""
    ignore = settings.pop("ignore_file_pattern", None)
    folder = hub.resolve(model_name_or_path, revision, local_files_only=local_files_only, ignore=ignore)
    task = hub.task_of(folder)
    if task is None:
        raise ConfigurationError(f"{folder} does not hold a model of the tasks {', '.join(MODEL_TYPES)}")
    registered = MODELS.get(MODEL_TYPES[task], task)
    builder = cls if issubclass(cls, registered) else registered
    for unused in (*WITHOUT_EFFECT, *OF_LOADING):
        settings.pop(unused, None)
    if torch_dtype is not None:
        settings.setdefault("dtype", torch_dtype)
    model = builder(str(folder), cfg_dict=cfg_dict, device=device, **settings)
    model.name = os.fspath(model_name_or_path)
    return model


def _single(model: Any, task: str) -> Any:
    if model is None:
        return DEFAULT_MODELS[task][1]
    if isinstance(model, (list, tuple)):
        if len(model) != 1:
            raise ArgumentError(f"the task {task!r} takes one model, not {len(model)}")
        return model[0]
    return model


def _check_task(folder: Path, task: str) -> None:
    found = hub.task_of(folder)
    if found is not None and found != task:
        raise ConfigurationError(f"{folder} holds a model of the task {found!r}, not {task!r}")
