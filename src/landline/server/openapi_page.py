"""The page at `/docs/api`: the OpenAPI document for people. It has no script, and asks for nothing but itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

Json = dict[str, Any]

HEADERS = (
    (b"content-type", b"text/html; charset=utf-8"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>Landline: the HTTP API</title>
<style>
:root { --line: color-mix(in srgb, currentColor 20%, #0000); --soft: color-mix(in srgb, currentColor 65%, #0000) }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 56rem; margin: 3rem auto; padding: 0 1.25rem }
h1 { font-size: 1.6rem }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem }
h3 { font-size: .95rem; margin: 1.1rem 0 .3rem }
p { margin: .25rem 0 1rem; color: var(--soft) }
code, pre { font: .875rem/1.5 ui-monospace, monospace }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); border-radius: .4rem; margin: .4rem 0 }
details { border-top: 1px solid var(--line) } details[open] { padding-bottom: 1rem }
summary { cursor: pointer; padding: .55rem 0; overflow-wrap: anywhere }
summary b { display: inline-block; min-width: 4.2rem; font: 600 .8rem ui-monospace, monospace }
summary span { color: var(--soft); display: block; padding-left: 1.2rem }
table { border-collapse: collapse; width: 100% }
td { border-top: 1px solid var(--line); padding: .35rem .75rem .35rem 0; vertical-align: top; overflow-wrap: anywhere }
td:first-child { white-space: nowrap }
</style>
"""


def page(document: Json) -> bytes:
    """The whole page for an OpenAPI document whose references lead to its own components."""
    return "".join(_page(document)).encode()


def _page(document: Json) -> Iterator[str]:
    yield _HEAD
    yield "<h1>Landline: the HTTP API</h1>"
    yield '<p>The same for programs: <a href="../openapi.json"><code>/openapi.json</code></a>. '
    yield f"Version {escape(document['info']['version'])}.</p>"
    yield _table(
        (f"Credential <code>{escape(name)}</code>", _prose(scheme["description"]))
        for name, scheme in document["components"]["securitySchemes"].items()
    )
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2><p>{_prose(tag['description'])}</p>"
        for path, there in document["paths"].items():
            for method, operation in there.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(document, method, path, operation)


def _operation(document: Json, method: str, path: str, operation: Json) -> Iterator[str]:
    yield f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code>"
    yield f"<span>{_prose(operation['summary'])}</span></summary>"
    opened_by = [name for kind in operation["security"] for name in kind or ("nothing",)]
    yield f"<h3>Opened by</h3>{escape(', '.join(opened_by) or 'nothing')}"
    parameters = [_resolved(document, each) for each in operation.get("parameters", ())]
    if parameters:
        yield "<h3>Parameters</h3>"
        yield _table(
            (f"<code>{escape(each['name'])}</code> ({each['in']})", _prose(each["description"])) for each in parameters
        )
    if "requestBody" in operation:
        yield f"<h3>Body</h3>{_content(operation['requestBody']['content'])}"
    yield "<h3>Answers</h3>"
    yield _table((status, _answer(answer)) for status, answer in operation["responses"].items())
    yield "</details>"


def _answer(answer: Json) -> str:
    return _prose(answer["description"]) + _content(answer.get("content", {}))


def _prose(text: str) -> str:
    """A description, whose only Markdown is `code`."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _content(content: Json) -> str:
    """An example for each media type; its name alone where there is none."""
    return "".join(
        f"<div><code>{escape(media_type)}</code></div>"
        + "".join(f"<pre>{_example(example['value'])}</pre>" for example in each.get("examples", {}).values())
        for media_type, each in content.items()
    )


def _example(value: object) -> str:
    return escape(json.dumps(value, indent=2, ensure_ascii=False))


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><td>{name}<td>{text}" for name, text in rows) + "</table>"


def _resolved(document: Json, node: Json) -> Json:
    """What a reference within the document leads to."""
    found: Json = document
    for name in node["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found
