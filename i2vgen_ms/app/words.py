"""Words: what the page says, one file a language under registry/words.

Given a language and a key; it does not know where on the page the words stand.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from i2vgen_ms.config.data import registry_folder
from i2vgen_ms.config.json_file import read_object
from i2vgen_ms.errors import ArgumentError, nearest

LANGUAGES = {"en": "English", "zh": "中文"}


@dataclass(frozen=True)
class Words:
    """All texts of one language."""

    language: str
    texts: dict[str, str] = field(repr=False)

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key, with `{name}` replaced by the value of that name."""
        text = self.texts[key]
        return text.format(**values) if values else text


@functools.cache
def words_of(language: str) -> Words:
    """The words of a language. Raises: ArgumentError for one that there is not."""
    if language not in LANGUAGES:
        raise ArgumentError(f"language: no {language!r}; {nearest(str(language), LANGUAGES)}")
    texts = read_object(registry_folder() / "words" / f"{language}.json")
    return Words(language, {key: str(text) for key, text in texts.items()})


def chosen(asked: str | None, accepted: str | None, default: str = "en") -> str:
    """The language to begin with.

    asked: the page's `?lang=`. accepted: what the browser sends as Accept-Language, whose order counts, as browsers
    send it.

    >>> chosen("zh", "en"), chosen(None, "fr, zh-CN;q=0.9, en;q=0.8"), chosen("xx", None)
    ('zh', 'zh', 'en')
    """
    for tag in (asked or "", *(accepted or "").split(",")):
        language = tag.partition(";")[0].strip().lower().partition("-")[0]
        if language in LANGUAGES:
            return language
    return default
