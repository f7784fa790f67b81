"""The import hook that puts this package in the place of ModelScope's own classes for its two tasks.

Given nothing: `activate()` is called when `i2vgen_ms` is imported, before or after modelscope, any number of times. It
uses the standard library only and imports neither torch nor modelscope; modelscope's modules are changed when, and only
if, somebody imports them (at once, if that has happened already):

- its class index gets our modules for the signatures of the two tasks, so that its registries find our classes;
- its task tables get the inputs, outputs and default models that they lack;
- `pipeline` and `Model.from_pretrained` ask `i2vgen_ms.plugin.resolver` first (`pipeline` is changed in place, because
  scripts hold the function itself: `from modelscope.pipelines import pipeline`);
- the dotted names of the published classes answer with ours, while the modules below them stay what they are.

It does not know what the classes do; they are in `i2vgen_ms.plugin`, which is imported when one of them is needed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import inspect
import os
import runpy
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

PLUGIN = "i2vgen_ms.plugin"

SIGNATURES: tuple[tuple[str, str, str], ...] = (
    ("MODELS", "image-to-video", "image-to-video-model"),
    ("MODELS", "video-to-video", "video-to-video-model"),
    ("PIPELINES", "image-to-video", "image-to-video-task-pipeline"),
    ("PIPELINES", "video-to-video", "video-to-video-pipeline"),
)

# In a module of their own, because most who make videos never train.
TRAINER_SIGNATURES: tuple[tuple[str, str, str], ...] = (
    ("TRAINERS", "default", "image-to-video-trainer"),
    ("TRAINERS", "default", "video-to-video-trainer"),
)

DOTTED_NAMES: dict[str, str] = {
    "modelscope.models.multi_modal.image_to_video": "ImageToVideo",
    "modelscope.models.multi_modal.image_to_video.image_to_video_model": "ImageToVideo",
    "modelscope.models.multi_modal.video_to_video": "VideoToVideo",
    "modelscope.models.multi_modal.video_to_video.video_to_video_model": "VideoToVideo",
    "modelscope.pipelines.multi_modal.image_to_video_pipeline": "ImageToVideoPipeline",
    "modelscope.pipelines.multi_modal.video_to_video_pipeline": "VideoToVideoPipeline",
}

DEFAULT_MODELS: dict[str, tuple[str, str]] = {
    "image-to-video": ("image-to-video-task-pipeline", "damo/Image-to-Video"),
    "video-to-video": ("video-to-video-pipeline", "damo/Video-to-Video"),
}


class _Redirect(importlib.abc.Loader):
    """Fills a module that stands under a published dotted name: one attribute, our class, fetched on first use."""

    def exec_module(self, module: types.ModuleType) -> None:
        name = DOTTED_NAMES[module.__name__]

        def __getattr__(attribute: str) -> Any:
            if attribute == name:
                return getattr(importlib.import_module(PLUGIN), name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {attribute!r}")

        vars(module).update(
            __getattr__=__getattr__, __all__=[name], __doc__=f"{PLUGIN}.{name} under its published name."
        )


class Finder(importlib.abc.MetaPathFinder):
    """First on `sys.meta_path`: answers the dotted names, and notices when one of modelscope's modules is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith("modelscope."):
            return None
        if fullname in DOTTED_NAMES:
            spec = importlib.machinery.ModuleSpec(fullname, _Redirect())
            folders = [os.path.join(entry, fullname.rpartition(".")[2]) for entry in path or ()]
            folders = [folder for folder in folders if os.path.isdir(folder)]
            if folders:  # a package: what lies below it is not ours and stays importable
                spec.submodule_search_locations = folders
            return spec
        if fullname in _AFTER_IMPORT:
            return self._watched(fullname, path, target)
        return None

    def _watched(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    _run_after(spec.loader, _AFTER_IMPORT[fullname])
                return spec
        return None


def _run_after(loader: Any, change: Callable[[Any], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: types.ModuleType) -> None:
        execute(module)
        change(module)

    loader.exec_module = exec_module


def activate() -> None:
    """Installs the hook once; what has been imported already is changed at once."""
    if any(type(finder).__qualname__ == "Finder" and type(finder).__module__ == __name__ for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, Finder())
    for name, change in _AFTER_IMPORT.items():
        if name in sys.modules:
            change(sys.modules[name])
    for name, attribute in DOTTED_NAMES.items():
        if name in sys.modules:  # published classes somebody imported before us: the module object is in use, keep it
            setattr(sys.modules[name], attribute, getattr(importlib.import_module(PLUGIN), attribute))


def _change_index(import_utils: Any) -> None:
    """Points modelscope's class index at our modules for the signatures of our classes."""
    owner = import_utils.LazyImportModule
    index = owner.get_ast_index() if hasattr(owner, "get_ast_index") else owner.AST_INDEX
    modules = dict.fromkeys(SIGNATURES, PLUGIN) | dict.fromkeys(TRAINER_SIGNATURES, f"{PLUGIN}.trainer")
    for signature, module in modules.items():
        index[import_utils.INDEX_KEY][signature] = {"filepath": "", "imports": [], import_utils.MODULE_KEY: module}
    for name in DOTTED_NAMES:  # they no longer need what the published modules import (cv2, for one)
        index[import_utils.REQUIREMENT_KEY].pop(name, None)


def _change_tables(builder: Any) -> None:
    """Registers inputs, outputs and default models of the two tasks, which modelscope's tables lack."""
    inputs, outputs = sys.modules["modelscope.pipeline_inputs"], sys.modules["modelscope.outputs"]
    kind: Any = inputs.InputType
    inputs.TASK_INPUTS["image-to-video"] = kind.IMAGE
    inputs.TASK_INPUTS["video-to-video"] = {"video_path": kind.VIDEO, "text": kind.TEXT}
    for task, (pipeline_type, model) in DEFAULT_MODELS.items():
        outputs.TASK_OUTPUTS[task] = [outputs.OutputKeys.OUTPUT_VIDEO]
        builder.add_default_pipeline_info(task, pipeline_type, model, overwrite=True)


def _change_builder(builder: Any) -> None:
    """Makes modelscope's `pipeline` ask us first. Its code is exchanged in place: scripts hold the function itself."""
    _change_index(sys.modules["modelscope.utils.import_utils"])
    _change_tables(builder)
    pipeline = builder.pipeline
    if hasattr(pipeline, "__wrapped__"):
        return
    published = types.FunctionType(
        pipeline.__code__, pipeline.__globals__, pipeline.__name__, pipeline.__defaults__, pipeline.__closure__
    )
    published.__kwdefaults__ = pipeline.__kwdefaults__
    _published["pipeline"] = published
    pipeline.__wrapped__ = published  # inspect.signature() and help() go on showing the published signature
    pipeline.__code__ = _ask_us_first.__code__
    pipeline.__defaults__ = pipeline.__kwdefaults__ = None


def _ask_us_first(*args, **kwargs):  # type: ignore[no-untyped-def]  # runs with modelscope's globals: names none of ours
    from i2vgen_ms.activation import ask_pipeline

    return ask_pipeline(*args, **kwargs)


def ask_pipeline(*args: Any, **kwargs: Any) -> Any:
    """What modelscope's `pipeline` does now: ours for our two tasks, the published function for every other call."""
    published = _published["pipeline"]
    try:
        arguments = inspect.signature(published).bind(*args, **kwargs).arguments
    except TypeError:
        return published(*args, **kwargs)  # raises what it always raised
    task, name = arguments.get("task"), arguments.get("pipeline_name")
    ours = {pipeline_type for pipeline_type, _ in DEFAULT_MODELS.values()}
    if name in ours or (name is None and task in DEFAULT_MODELS):
        return importlib.import_module(f"{PLUGIN}.resolver").pipeline(published, arguments)
    return published(*args, **kwargs)


def _change_model(base_model: Any) -> None:
    """Makes `Model.from_pretrained` ask us first."""
    _change_index(sys.modules["modelscope.utils.import_utils"])
    published = base_model.Model.__dict__["from_pretrained"].__func__
    if hasattr(published, "__wrapped__"):
        return

    @functools.wraps(published)
    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        from i2vgen_ms import hub

        name = args[0] if args else kwargs.get("model_name_or_path")
        if isinstance(name, (str, os.PathLike)) and hub.is_ours(name):
            resolver = importlib.import_module(f"{PLUGIN}.resolver")
            return resolver.from_pretrained(cls, *args, **kwargs)
        return published(cls, *args, **kwargs)

    base_model.Model.from_pretrained = classmethod(from_pretrained)


_published: dict[str, Callable[..., Any]] = {}

_AFTER_IMPORT: dict[str, Callable[[Any], None]] = {
    "modelscope.models.base.base_model": _change_model,
    "modelscope.pipelines.builder": _change_builder,
}


def run_script(path: str | os.PathLike[str], arguments: Sequence[str] = ()) -> None:
    """Runs the Python script `path` as `python path *arguments` would, with the plugin active.

    `sys.argv` and `sys.path[0]` are what the script would see, and are restored afterwards. Whatever the script raises,
    SystemExit with its code included, passes through.
    """
    activate()
    script = os.fspath(path)
    argv, search = sys.argv, list(sys.path)
    sys.argv = [script, *arguments]
    if not sys.flags.safe_path:
        sys.path[:1] = [os.path.dirname(os.path.realpath(script))]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        sys.argv, sys.path[:] = argv, search
