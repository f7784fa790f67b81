"""Description: the API as a page to read, made from its OpenAPI document: no script, and nothing from another host.

Given the document. It knows nothing of routes but what stands there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from typing import Any

from fastapi.responses import HTMLResponse

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 ui-sans-serif, system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 2.5rem; }
h3 { font-size: 1rem; margin: 2rem 0 0.3rem; overflow-wrap: anywhere; }
h3 b { display: inline-block; min-width: 4.5em; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
caption { text-align: left; font-weight: 600; padding: 0.6rem 0 0.2rem; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 1rem 0.25rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 400; white-space: nowrap; }
code { font-family: ui-monospace, Consolas, monospace; background: var(--soft); padding: 0 0.2em; }
p { margin: 0.3rem 0; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
)


def response(document: Mapping[str, Any]) -> HTMLResponse:
    """The page of an OpenAPI document, with headers that let it fetch nothing."""
    return HTMLResponse(page(document), headers=HEADERS)


def page(document: Mapping[str, Any]) -> str:
    """The page as HTML."""
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    routes = [
        _route(method, path, what) for path, methods in document["paths"].items() for method, what in methods.items()
    ]
    schemas = document.get("components", {}).get("schemas", {})
    return "".join(
        (
            f"{_HEAD}<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
            _words(info.get("description", "")),
            '<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p><h2>Routes</h2>',
            *routes,
            "<h2>What is sent back</h2>",
            *(_schema(name, schema) for name, schema in schemas.items()),
            "</html>",
        )
    )


def _route(method: str, path: str, what: Mapping[str, Any]) -> str:
    parts = [
        f"<h3><b>{escape(method.upper())}</b> <code>{escape(path)}</code></h3>",
        _words(what.get("description", "")),
    ]
    given = [(f"{one['name']} ({one['in']})", one["schema"], one.get("required")) for one in what.get("parameters", ())]
    parts.append(_table("Parameters", given))
    for kind, content in what.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        required = schema.get("required", ())
        fields = [(name, field, name in required) for name, field in schema.get("properties", {}).items()]
        parts.append(_table(f"Body, as {kind}", fields))
    rows = []
    for status, answer in what.get("responses", {}).items():
        kinds = [
            _type(content.get("schema", {})) or escape(kind) for kind, content in answer.get("content", {}).items()
        ]
        rows.append(_row(escape(status), ", ".join(kinds), escape(answer.get("description", ""))))
    parts.append(f"<table><caption>Answers</caption>{''.join(rows)}</table>")
    return "".join(parts)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    fields = [(key, field, key in required) for key, field in schema.get("properties", {}).items()]
    head = f'<h3 id="{escape(name)}">{escape(name)}</h3>{_words(schema.get("description", ""))}'
    return head + _table("", fields)


def _table(caption: str, fields: list[tuple[str, Mapping[str, Any], Any]]) -> str:
    if not fields:
        return ""
    rows = []
    for name, schema, required in fields:
        notes = [escape(str(schema.get("description", "")))]
        if "default" in schema:
            notes.append(f"Without it: <code>{escape(_json(schema['default']))}</code>")
        elif required and caption:
            notes.append("Needed")
        rows.append(_row(f"<code>{escape(name)}</code>", _type(schema), ". ".join(filter(None, notes))))
    return f"<table>{f'<caption>{escape(caption)}</caption>' if caption else ''}{''.join(rows)}</table>"


def _row(*cells: str) -> str:
    head, *others = cells
    return f"<tr><th scope='row'>{head}</th>{''.join(f'<td>{cell}</td>' for cell in others)}</tr>"


def _type(schema: Mapping[str, Any]) -> str:
    """What kind of value a schema describes, as HTML; another schema as a link to it."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(f"<code>{escape(_json(one))}</code>" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "")))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _words(text: str) -> str:
    """Paragraphs of plain words, with `code` between backticks."""
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return "".join(f"<p>{_code(escape(part))}</p>" for part in paragraphs if part)


def _code(escaped: str) -> str:
    pieces = escaped.split("`")
    return "".join(piece if place % 2 == 0 else f"<code>{piece}</code>" for place, piece in enumerate(pieces))
