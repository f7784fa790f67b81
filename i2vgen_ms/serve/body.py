"""Body: what is sent to /v1/jobs, as a Request of the service. JSON with base64, or a form with a file.

It does not look into the picture or the clip, and takes neither names of files nor addresses.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from anyio import to_thread
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request as HttpRequest

from i2vgen_ms.errors import ArgumentError, nearest
from i2vgen_ms.serve.problems import Problem
from i2vgen_ms.service import Request
from i2vgen_ms.service.job import FIRST, SECOND

FIELDS = ("kind", "data", "text", "seed", "preview", "arguments", "first", "second")
FORM_FIELDS = ("file", *(field for field in FIELDS if field != "data"))
_OBJECTS = ("arguments", "first", "second")
_FIELD_BYTES = 1 << 16
# Commas, colons and brackets. Each may become an object of fifty bytes while every other thread waits; base64 has none.
MARKS = 10_000
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,")


async def request_of(http: HttpRequest) -> Request:
    """The request in a body.

    Raises: ArgumentError for what is wrong in it; Problem for a content type that is not taken.
    """
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = await http.body()
        return await to_thread.run_sync(_from_json, body)
    if kind == "multipart/form-data":
        return await _from_form(http)
    raise Problem(415, "send application/json, or multipart/form-data with a file")


def _from_json(body: bytes) -> Request:
    marks = sum(body.count(mark) for mark in b",:[{")
    if marks > MARKS:
        words = f"the body has {marks} commas, colons and brackets, where a job needs a few; at most {MARKS} are taken"
        raise ArgumentError(words)
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        words = "it is nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise ArgumentError(f"the body is not JSON: {words}") from None
    if not isinstance(values, dict):
        raise ArgumentError("the body is not a JSON object")
    _check_names(values, FIELDS)
    return _request(values, _decoded(values.get("data")))


async def _from_form(http: HttpRequest) -> Request:
    try:
        form = http.form(max_files=1, max_fields=len(FORM_FIELDS), max_part_size=_FIELD_BYTES)
        async with form as fields:
            _check_names(fields, FORM_FIELDS)
            if len(fields.multi_items()) != len(fields):
                raise ArgumentError("a field of the form stands there twice")
            file = fields.get("file")
            if not isinstance(file, UploadFile):
                raise ArgumentError("file: a picture or a clip is missing; send it as a file of the form")
            values = {name: _value(name, words) for name, words in fields.items() if name != "file"}
            return _request(values, await file.read())
    except MultiPartException as error:
        raise ArgumentError(f"the form cannot be read: {error.message[:200]}") from None
    except HTTPException as error:  # what the framework makes of the same
        raise ArgumentError(f"the form cannot be read: {error.detail[:200]}") from None


def _value(name: str, words: Any) -> Any:
    """A field of a form as the value that JSON would have had."""
    if not isinstance(words, str):
        raise ArgumentError(f"{name} is no file; send it as a plain field")
    if name in ("kind", "text"):
        return words
    try:
        return json.loads(words)
    except (ValueError, RecursionError):
        raise ArgumentError(f"{name}: {words[:80]!r} is not JSON") from None


def _request(values: Mapping[str, Any], data: bytes) -> Request:
    kind, seed, preview = values.get("kind", FIRST), values.get("seed"), values.get("preview", False)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise ArgumentError(f"seed must be a whole number, not {seed!r:.80}")
    if not isinstance(preview, bool):
        raise ArgumentError(f"preview must be true or false, not {preview!r:.80}")
    objects = {name: values.get(name) or {} for name in _OBJECTS}
    for name, value in objects.items():
        if not isinstance(value, dict):
            raise ArgumentError(f'{name} must be an object such as {{"steps": 20}}, not {value!r:.80}')
    own = objects.pop("arguments")
    if own:
        if kind == "animate":
            raise ArgumentError("arguments: 'animate' has two stages; give first and second instead")
        stage = "second" if kind == SECOND else "first"
        objects[stage] = {**own, **objects[stage]}
    return Request(kind=kind, source=data, text=values.get("text"), seed=seed, preview=preview, **objects)


def _decoded(data: Any) -> bytes:
    if not isinstance(data, str):
        raise ArgumentError("data: the bytes of a picture or a clip are missing; send them in base64")
    head = _DATA_URL.match(data[:200])
    if head is None and "://" in data[:20]:
        raise ArgumentError("data: addresses are not fetched here; send the bytes of the picture or the clip in base64")
    try:
        return base64.b64decode(data[head.end() :] if head else data, validate=True)
    except (binascii.Error, ValueError):
        raise ArgumentError("data: this is not base64; send the bytes of a picture or a clip, not a name") from None


def _check_names(values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in values:
        if name not in known:
            raise ArgumentError(f"there is no field {str(name)!r:.80}; {nearest(str(name), known)}")
