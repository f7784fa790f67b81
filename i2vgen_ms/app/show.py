"""Show: what stands where the video will be, as HTML: nothing yet, work with a preview, a summary, or what went wrong.

Given words and a job's status; everything that came from elsewhere is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape

import numpy as np
from PIL import Image

from i2vgen_ms.app.sessions import Made
from i2vgen_ms.app.words import Words
from i2vgen_ms.service import Preview, Status
from i2vgen_ms.service.job import Failure

_FRAME_MS = 160
_THUMB = 72  # pixels of a frame's height in the strip


def idle(words: Words) -> str:
    """Before anything was asked for."""
    return _card("idle", f"<p>{escape(words('idle'))}</p>")


def working(words: Words, status: Status) -> str:
    """A job on its way."""
    if status.state == "queued":
        where = words("queued", before=status.waiting or 0)
    elif status.stage == "starting" or not status.steps:
        where = words("starting")
    else:
        where = words(f"stage.{status.stage}", step=status.step, steps=status.steps)
    percent = round(100 * status.progress)
    left = "" if status.seconds_left is None else words("left", time=seconds(words, status.seconds_left))
    name = words("first.name" if status.kind == "image-to-video" else "second.name")
    bar = (
        f'<div class="i2v-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}">'
        f'<span style="width:{percent}%"></span></div>'
    )
    line = f"<div class='i2v-line'><span>{escape(where)}</span><span>{percent} % {escape(left)}</span></div>"
    return _card("working", f"<h3>{escape(name)}</h3>{bar}{line}")


def preview(inside: str, number: int) -> str:
    """Below it, the preview of that number, as `picture_of` made it, or what `waiting` says before there is one."""
    return f'<div class="i2v-card" data-preview="{number}">{inside}</div>'


def waiting(words: Words) -> str:
    """Where the preview will be."""
    return f'<div class="i2v-empty">{escape(words("waiting"))}</div>'


def done(words: Words, made: Made) -> str:
    """A video is there."""
    text = words(
        "done.first" if made.base is None else "done.second",
        seconds=seconds(words, made.seconds),
        seed=made.recipe.seed,
        frames=made.frames,
        size=f"{made.width} × {made.height}",
    )
    return _card("done", f"<p>{escape(text)}</p>{notes(words, made.warnings)}")


def notes(words: Words, warnings: Iterable[Failure]) -> str:
    """What there is to know about a video that was made all the same."""
    found = []
    for warning in warnings:
        key = f"warning.{warning.type}"
        text = escape(words(key if key in words.texts else "warning.other"))
        found.append(f'<div class="i2v-note" role="note"><p>{text}</p>{_detail(warning.message)}</div>')
    return "".join(found)


def cancelled(words: Words) -> str:
    """The job was stopped."""
    return _card("cancelled", f"<p>{escape(words('cancelled'))}</p>")


def failed(words: Words, failure: Failure) -> str:
    """What went wrong, in words: of what kind it is and what to do, in the page's language; below, what was said."""
    key = f"error.{failure.type}"
    if key not in words.texts:
        key = "error.internal"
    told = f"<h3>{escape(words(key))}</h3><p>{escape(words(f'{key}.help'))}</p>{_detail(failure.message)}"
    return _card("failed", told, role="alert")


def settings(words: Words, made: Made) -> str:
    """The settings that made a video, as a table."""
    recipe = made.recipe
    rows = {"model": recipe.origin.model, "source": recipe.source, "seed": recipe.seed}
    if recipe.text is not None:
        rows["text"] = recipe.text
    rows |= recipe.arguments
    body = "".join(
        f"<tr><th>{escape(words(f'knob.{name}'))}</th><td>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f'<table class="i2v-settings">{body}</table>'


def picture_of(preview: Preview) -> str:
    """A preview: its frames moving, and below them side by side."""
    frames = [Image.fromarray(frame) for frame in preview.frames]
    moving = io.BytesIO()
    frames[0].save(
        moving, "WEBP", save_all=True, append_images=frames[1:], duration=_FRAME_MS, loop=0, quality=80, method=0
    )
    wide, high = frames[0].size
    size = (max(1, round(wide * _THUMB / high)), _THUMB)
    strip = io.BytesIO()
    row = np.concatenate([np.asarray(frame.resize(size)) for frame in frames], axis=1)
    Image.fromarray(row).save(strip, "JPEG", quality=80)
    return (
        f'<img class="i2v-moving" alt="" src="{_data(moving, "webp")}">'
        f'<img class="i2v-strip" alt="" src="{_data(strip, "jpeg")}">'
    )


def seconds(words: Words, value: float) -> str:
    """A time in words: `8 s`, `2 min 5 s`."""
    whole = max(1, round(value))
    if whole < 60:
        return words("seconds", seconds=whole)
    return words("minutes", minutes=whole // 60, seconds=whole % 60)


def _data(file: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _detail(message: str) -> str:
    """The words of an error or a warning, which are English on every page."""
    return f'<p class="i2v-detail" lang="en">{escape(message)}</p>' if message else ""


def _card(state: str, inside: str, role: str = "status") -> str:
    return f'<div class="i2v-card i2v-{state}" data-state="{state}" role="{role}">{inside}</div>'
