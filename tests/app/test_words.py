"""What the page says: the same texts in every language, and a text for whatever may have to be said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from i2vgen_ms import errors
from i2vgen_ms.app import show
from i2vgen_ms.app.knobs import WINDOW, knobs
from i2vgen_ms.app.words import LANGUAGES, chosen, words_of
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.media.audio import AudioWarning
from i2vgen_ms.pipelines import ClipWarning, MemoryWarning
from i2vgen_ms.service import RequestLimits
from i2vgen_ms.service.failure import TOLD, type_of, warning_of
from i2vgen_ms.service.job import Failure
from tests.service.stages import FakeStage

FOLDER = Path(show.__file__).parent
PLACES = re.compile(r"\{(\w+)\}")


def test_every_language_has_every_text_with_the_same_places() -> None:
    first, *others = (words_of(language).texts for language in LANGUAGES)
    assert others
    for other in others:
        assert other.keys() == first.keys()
        assert {key: set(PLACES.findall(text)) for key, text in other.items()} == {
            key: set(PLACES.findall(text)) for key, text in first.items()
        }
        assert sum(other[key] == first[key] for key in first) <= 1, "this was not translated"
    assert all(text.strip() for texts in (first, *others) for text in texts.values())


def test_every_text_is_used_and_there_is_one_for_every_knob_and_error() -> None:
    keys = set(words_of("en").texts)
    code = "\n".join(file.read_text(encoding="utf-8") for file in FOLDER.glob("*.py"))
    stages = [FakeStage("image-to-video"), FakeStage("video-to-video")]
    needed = {f"knob.{knob.name}" for stage in stages for knob in knobs(stage, RequestLimits())}
    needed |= {f"knob.{name}" for name in ("model", "source", "seed", "text", WINDOW)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TOLD)]
    assert len(kinds) > 10
    needed |= {f"error.{type_of(kind(''))}" for kind in kinds if kind not in (errors.ServiceError, errors.Cancelled)}
    needed |= {"error.internal", "error.no_picture", "stage.sampling", "stage.decoding", "warning.other"}
    needed |= {f"{key}.help" for key in needed if key.startswith("error.")}
    needed |= {f"warning.{warning_of(kind()).type}" for kind in (ClipWarning, AudioWarning, MemoryWarning)}
    assert needed - keys == set()
    computed = ("again.", "knob.", "error.", "stage.", "warning.")
    assert {key for key in keys if key.startswith("error.")} - needed == set()
    assert {key for key in keys if f'"{key}"' not in code and not key.startswith(computed)} == set()


def test_the_language_is_the_address_s_then_the_browser_s() -> None:
    assert chosen("zh", "en-GB") == "zh"
    assert chosen(None, "zh-CN,zh;q=0.9,en;q=0.8") == "zh"
    assert chosen("<script>", "de, en-US;q=0.7, zh") == "en"
    assert chosen(None, None, "zh") == "zh"
    with pytest.raises(ArgumentError, match="no 'fr'"):
        words_of("fr")


def test_what_is_shown_is_escaped_and_an_unknown_error_has_a_title() -> None:
    shown = show.failed(words_of("en"), Failure("nobody_knows", "<script>alert(1)</script>"))
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert words_of("en")("error.internal") in shown


def test_errors_and_warnings_are_said_in_the_page_s_language_and_english_is_marked_as_such() -> None:
    zh = words_of("zh")
    shown = show.failed(zh, Failure("limit", "first: steps is 999"))
    assert "超出了这里的上限" in shown
    assert "减少步数" in shown
    assert '<p class="i2v-detail" lang="en">first: steps is 999</p>' in shown
    assert "i2v-detail" not in show.failed(zh, Failure("no_picture", ""))
    told = show.notes(zh, [Failure("audio", "the sound is left out: <b>"), Failure("nobody_knows", "later")])
    assert "声音没有保留。" in told
    assert zh("warning.other") in told
    assert "&lt;b&gt;" in told
    assert show.notes(zh, []) == ""
