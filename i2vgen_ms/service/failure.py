"""Failure: an exception in words that may be told to strangers.

Errors that are about the request keep their words, without the names of this machine's folders; anything else is only
said to have happened, and stands in the log.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from i2vgen_ms import errors
from i2vgen_ms.service.job import Failure

# What the words of these are about came with the request, or is what the sender can lower.
TOLD = (
    errors.ArgumentError,
    errors.LimitError,
    errors.UnreadableMediaError,
    errors.MediaLimitError,
    errors.OutOfMemoryError,
    errors.NonFiniteError,
    errors.ServiceError,
    errors.Cancelled,
)
LONGEST = 1000  # characters of a message: what a request said may stand in it
_INTERNAL = "the server could not do this; its log says why"


def type_of(error: BaseException) -> str:
    """The word for an error's kind: ArgumentError is `argument`, MediaLimitError `media_limit`.

    >>> type_of(errors.MediaLimitError("")), type_of(ZeroDivisionError())
    ('media_limit', 'internal')
    """
    if not isinstance(error, TOLD):
        return "internal"
    return _word(error, "Error")


def failure_of(error: BaseException, hidden: Iterable[str | os.PathLike[str]] = ()) -> Failure:
    """What may be said about an error; `hidden`: folders whose names are left out, beside those of every machine."""
    if not isinstance(error, TOLD):
        return Failure("internal", _INTERNAL)
    return Failure(type_of(error), _told(error, hidden))


def warning_of(warning: Warning, hidden: Iterable[str | os.PathLike[str]] = ()) -> Failure:
    """What is said about a warning; the word for ClipWarning is `clip`."""
    return Failure(_word(warning, "Warning"), _told(warning, hidden))


def _told(one: BaseException, hidden: Iterable[str | os.PathLike[str]]) -> str:
    words = without_folders(str(one), hidden)  # before it is cut: half of a path would not be known for one
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}..."


def _word(one: BaseException, end: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(one).__name__.removesuffix(end)).lower()


def without_folders(words: str, hidden: Iterable[str | os.PathLike[str]] = ()) -> str:
    """`words` with `...` for every path below these folders, or those of the package, the user and the system."""
    places = [Path(__file__).resolve().parents[2], tempfile.gettempdir(), Path.home(), Path.cwd(), *hidden]
    for place in sorted({os.fspath(place) for place in places}, key=len, reverse=True):
        if len(place) > 1:
            words = re.sub(re.escape(place) + r"[^\s'\":;,]*", "...", words)
    return words
