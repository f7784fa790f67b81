"""Page: models, service, desk, layout and events put together as gradio's Blocks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr

from i2vgen_ms import demo, hub
from i2vgen_ms.app.desk import Desk
from i2vgen_ms.app.events import Events
from i2vgen_ms.app.knobs import knobs
from i2vgen_ms.app.layout import Layout
from i2vgen_ms.app.place import Cache
from i2vgen_ms.app.recipe import Origin
from i2vgen_ms.app.words import words_of
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.pipelines import load
from i2vgen_ms.service import Models, Service, ServiceSettings

LOOKS: dict[str, Any] = {"preview_frames": 8, "preview_side": 384, "preview_seconds": 0.4, "preview_share": 0.4}
WAITING = 64  # events of all pages that may wait; jobs wait in the service, where there is room for fewer
CLEAN_SECONDS = 600


class Page(gr.Blocks):
    """The Blocks, with what they stand for: `service`, `desk` and gradio's `cache`, which `end` closes."""

    service: Service
    desk: Desk
    cache: Cache
    show_folders: bool | None = None

    def end(self, grace: float = 0.0) -> None:
        """Ends the service, within so many seconds, and removes all files."""
        self.service.close(grace)
        self.cache.close()
        self.desk.close()


def build(
    first: str | os.PathLike[str] | None = None,
    second: str | os.PathLike[str] | None = None,
    *,
    first_revision: str | None = None,
    second_revision: str | None = None,
    second_lora: str | None = None,
    local_files_only: bool = False,
    settings: ServiceSettings | None = None,
    language: str = "en",
    show_folders: bool | None = None,
    **loading: Any,
) -> Page:
    """The page with the models of both stages, or of the first alone.

    Args:
        first, second: folders or ids. Without any, the bundled small models; with a first one alone there is no second
            stage; with a second one alone the first is the bundled one.
        settings: of the service: its queue, its limits, how long results are kept.
        language: en or zh, for browsers that ask for neither.
        show_folders: whether the folders of models and adapters stand in what is copied; otherwise only their names do.
            None shows them where this machine alone is listened to.
        loading: as for `i2vgen_ms.load`: device, dtype, cache, memory, lora, lora_scale.
    """
    if first is None and second is None:
        second = demo.SECOND
    settings = settings or ServiceSettings(**LOOKS)
    limits = settings.limits.media()
    stages: list[Any] = []
    origins: list[Origin] = []
    for name, revision, task, other in (
        (first or demo.FIRST, first_revision, "image-to-video", {}),
        (second, second_revision, "video-to-video", {"lora": second_lora}),
    ):
        if name is None:
            continue
        stage = load(
            hub.resolve(name, revision, local_files_only=local_files_only), **{**loading, **other}, limits=limits
        )
        if stage.configuration.task != task:
            raise ArgumentError(f"{os.fspath(name)!r} is a model of {stage.configuration.task}, not of {task}")
        stages.append(stage)
        origins.append(_origin(name, revision, {**loading, **other}, stage))
    models = Models(
        first=stages[0], second=stages[1] if len(stages) > 1 else None, device=str(stages[0].device), also=("memory",)
    )
    page = of_service(Service([models], settings), *origins, language=language)
    page.show_folders = show_folders
    page.desk.show_folders = bool(show_folders)
    return page


def of_service(
    service: Service, first: Origin, second: Origin | None = None, *, language: str = "en", folder: Path | None = None
) -> Page:
    """The page over a service whose models came from `first` and `second`; files are kept below `folder`."""
    limits = service.settings.limits
    one = knobs(service.models.first, limits)
    two = None if second is None else knobs(service.models.second, limits)
    words, seconds = words_of(language), int(service.settings.keep_seconds)
    desk = Desk(service, first, second, folder)
    cache = Cache(desk.folder / "gradio")  # before any component is made: each remembers its place
    page = Page(
        analytics_enabled=False, title="i2vgen_ms", fill_width=True, delete_cache=(min(CLEAN_SECONDS, seconds), seconds)
    )
    page.service, page.desk, page.cache = service, desk, cache
    with page:
        layout = Layout(desk, words, one, two)
        Events(desk, layout, one, two).bind(page)
    page.queue(max_size=WAITING, default_concurrency_limit=None)
    return page


def _origin(name: str | os.PathLike[str], revision: str | None, loading: dict[str, Any], stage: Any) -> Origin:
    """How a stage was loaded, as far as it decides the video."""
    decides = {key: loading.get(key) for key in ("dtype", "lora", "compile")}
    if decides["lora"] is not None:
        decides["lora_scale"] = loading.get("lora_scale", 1.0)
    return Origin(model=os.fspath(name), revision=revision, loading={"device": str(stage.device), **decides})
