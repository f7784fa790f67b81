"""Layout: the parts of the page and where they stand, and which words each has.

Given a desk and the knobs; it knows nothing of what happens when something is pressed (events.py does).
"""

from __future__ import annotations

import math
from abc import ABCMeta
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from i2vgen_ms.app import show
from i2vgen_ms.app.desk import Desk
from i2vgen_ms.app.knobs import Knob
from i2vgen_ms.app.words import LANGUAGES, Words

MEMORY = "memory"


def uploaded(self: Any, payload: Any) -> str | None:
    """The name of a file that was uploaded into gradio's cache; None for anything else, such as an address."""
    if payload is None or not payload.path:
        return None
    path = Path(payload.path).resolve()
    return str(path) if path.is_relative_to(Path(self.GRADIO_CACHE).resolve()) else None


def number(self: Any, payload: Any) -> float | int | None:
    """A number, whatever its size; None for anything else."""
    good = isinstance(payload, int | float) and not isinstance(payload, bool) and math.isfinite(payload)
    return self.round_to_precision(payload, self.precision) if good else None


def _drawn_as(base: Any, name: str, preprocess: Any) -> Any:
    """gradio's component, drawn as its own is, but with another look at what comes in: our own readers and limits say
    what is wrong, in the page's language. It is no class statement, because gradio writes a .pyi file beside the source
    of every one."""
    return ABCMeta.__new__(
        type(base), name, (base,), {"preprocess": preprocess, "is_template": True, "__module__": __name__}
    )


Picture = _drawn_as(gr.Image, "Picture", uploaded)
Number = _drawn_as(gr.Number, "Number", number)


class Layout:
    """All components, by attribute; made inside an open gr.Blocks.

    Args:
        first, second: the knobs of each stage; None where there is no second stage.
    """

    def __init__(self, desk: Desk, words: Words, first: Sequence[Knob], second: Sequence[Knob] | None) -> None:
        self.words = words
        self._texts: list[tuple[Any, dict[str, str]]] = []
        self._sections: list[tuple[Any, str]] = []
        self.first: dict[str, Any] = {}
        self.second: dict[str, Any] = {}
        self.memory: Any = None
        self.browser = gr.BrowserState(None, storage_key="i2vgen-ms")
        with gr.Row(equal_height=True):
            with gr.Column(scale=6):
                self.heading = gr.HTML(_heading(words))
            with gr.Column(scale=1, min_width=250):
                choices = [(name, key) for key, name in LANGUAGES.items()]
                self.language = self._say(
                    gr.Radio,
                    {"label": "language"},
                    choices=choices,
                    value=words.language,
                    show_label=False,
                    container=False,
                    elem_id="language",
                )
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                self._inputs(desk)
                self._drawer(first, second)
            with gr.Column(scale=7, min_width=360):
                self._outputs()
                self.stage2 = gr.Column(visible=False, elem_classes="i2v-panel")
                with self.stage2:
                    self._refine()
                self._result()
        self._gallery()

    def texts(self, words: Words) -> dict[Any, Any]:
        """What changes when the page speaks another language."""
        changes: dict[Any, Any] = {}
        for part, keys in self._texts:
            said: dict[str, Any] = {name: words(key) for name, key in keys.items()}
            changes[part] = gr.update(**said)
        headings = {self.heading: _heading(words)}
        headings |= {part: _section(words, key) for part, key in self._sections}
        return changes | {part: gr.update(value=value) for part, value in headings.items()}

    @property
    def spoken(self) -> list[Any]:
        """The components that `texts` changes."""
        return list(self.texts(self.words))

    def _inputs(self, desk: Desk) -> None:
        self._section("first.heading")
        self.picture = self._say(
            Picture,
            {"label": "picture", "placeholder": "picture.drop"},
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            buttons=["download"],
            height=250,
            elem_id="picture",
        )
        self._section("samples")
        self.samples = self._say(
            gr.Gallery,
            {"label": "samples"},
            show_label=False,
            value=[str(one.path) for one in desk.samples],
            columns=4,
            height="auto",
            allow_preview=False,
            interactive=False,
            object_fit="cover",
            buttons=[],
            elem_id="samples",
        )
        with gr.Row(equal_height=True):
            self.seed = self._say(
                Number, {"label": "seed", "info": "seed.info"}, precision=0, minimum=0, scale=3, elem_id="seed"
            )
            with gr.Column(scale=2, min_width=150):
                self.dice = self._say(gr.Button, {"value": "dice"}, size="sm", elem_id="dice")
                self.keep = self._say(gr.Checkbox, {"label": "keep"}, elem_id="keep")
        self.make = self._say(gr.Button, {"value": "make"}, variant="primary", size="lg", elem_id="make")

    def _drawer(self, first: Sequence[Knob], second: Sequence[Knob] | None) -> None:
        with self._say(gr.Accordion, {"label": "advanced"}, open=False, elem_id="advanced"):
            for heading, known, parts in (
                ("advanced.first", first, self.first),
                ("advanced.second", second or (), self.second),
            ):
                if not known:
                    continue
                self._section(heading)
                plain = [knob for knob in known if knob.name != MEMORY]
                for knob in plain:
                    if knob.choices:
                        parts[knob.name] = self._knob(knob, f"{heading.rpartition('.')[2]}-{knob.name}")
                with gr.Row():
                    for knob in plain:
                        if not knob.choices:
                            parts[knob.name] = self._knob(knob, f"{heading.rpartition('.')[2]}-{knob.name}")
            self._section("advanced.memory")
            self.memory = self._knob(next(knob for knob in first if knob.name == MEMORY), MEMORY)

    def _knob(self, knob: Knob, name: str) -> Any:
        keys, name = {"label": f"knob.{knob.name}"}, name.replace("_", "-")
        if knob.choices:
            return self._say(gr.Dropdown, keys, choices=list(knob.choices), value=knob.value, elem_id=name)
        return self._say(
            Number,
            keys,
            value=knob.value,
            minimum=knob.low,
            maximum=knob.high,
            step=knob.step,
            min_width=110,
            elem_id=name,
        )

    def _outputs(self) -> None:
        with gr.Column(elem_id="live"):
            self.live = gr.HTML(show.idle(self.words), padding=False)
            self.preview = gr.HTML(visible=False, padding=False)
        self.cancel = self._say(gr.Button, {"value": "cancel"}, variant="stop", visible=False, elem_id="cancel")
        with gr.Row():
            playing = {"interactive": False, "autoplay": True, "loop": True, "visible": False, "buttons": []}
            self.video1 = self._say(gr.Video, {"label": "stage1.video"}, elem_id="video1", **playing)
            self.video2 = self._say(gr.Video, {"label": "stage2.video"}, elem_id="video2", **playing)

    def _refine(self) -> None:
        self._section("second.heading")
        self.text = self._say(
            gr.Textbox, {"label": "text", "placeholder": "text.placeholder"}, lines=2, max_length=2000, elem_id="text"
        )
        self.refine = self._say(gr.Button, {"value": "refine"}, variant="primary", elem_id="refine")

    def _result(self) -> None:
        self.compare = self._say(
            gr.ImageSlider,
            {"label": "compare"},
            interactive=False,
            visible=False,
            buttons=["fullscreen"],
            elem_id="compare",
        )
        self.frame = self._say(
            gr.Slider, {"label": "compare.frame"}, minimum=1, maximum=2, step=1, visible=False, elem_id="frame"
        )
        self.download = self._say(gr.DownloadButton, {"label": "download"}, visible=False, elem_id="download")
        self.again = self._say(gr.Accordion, {"label": "again"}, open=False, visible=False, elem_id="again")
        with self.again:
            self.command = self._code("command", "shell")
            self.script = self._code("script", "python")
            self._say(gr.Markdown, {"value": "again.hint"})

    def _gallery(self) -> None:
        self.gallery_group = gr.Column(visible=False)
        with self.gallery_group, gr.Row():
            with gr.Column(scale=7):
                self._section("gallery")
                self.gallery = self._say(
                    gr.Gallery,
                    {"label": "gallery"},
                    show_label=False,
                    columns=4,
                    fit_columns=False,
                    height="auto",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="gallery",
                )
                self._say(gr.Markdown, {"value": "gallery.hint"}, elem_classes="i2v-hint")
            with gr.Column(scale=5):
                self._section("settings")
                self.settings = gr.HTML(elem_id="settings")

    def _say(self, kind: Any, keys: dict[str, str], **given: Any) -> Any:
        """A component whose texts are these keys."""
        part = kind(**{name: self.words(key) for name, key in keys.items()}, **given)
        self._texts.append((part, keys))
        return part

    def _code(self, name: str, language: str) -> Any:
        """A box of code that is there to be copied."""
        given: dict[str, Any] = {"language": language, "interactive": False, "lines": 1, "wrap_lines": True}
        return self._say(gr.Code, {"label": f"again.{name}"}, elem_id=name, **given)

    def _section(self, key: str) -> None:
        self._sections.append((gr.HTML(_section(self.words, key)), key))


def _heading(words: Words) -> str:
    return f'<div lang="{words.language}" class="i2v-head"><h1>{words("title")}</h1><p>{words("subtitle")}</p></div>'


def _section(words: Words, key: str) -> str:
    return f'<h2 class="i2v-section" lang="{words.language}">{words(key)}</h2>'
