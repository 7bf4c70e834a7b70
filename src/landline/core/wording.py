"""Why a value was refused, in words: what msgspec says of it in terms of its types, said in terms of who wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable

from landline.core.bot import APP_ID, ENDPOINT, SITE_ID, URL

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_PATTERNS = {
    URL: "must be an http or https URL",
    ENDPOINT: "must be an http or https URL",
    SITE_ID: "must have 1 to 64 characters of A-Z a-z 0-9 _ -",
    APP_ID: "must have 1 to 128 characters of A-Z a-z 0-9 . _ -",
}
_BOUNDS = {">=": "must be at least", ">": "must be more than", "<=": "must be at most", "<": "must be less than"}

_PATH = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_LOOKED_AT: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"Expected `(?:int|float)` (>=|>|<=|<) (\S+)"), lambda m: f"{_BOUNDS[m[1]]} {_number(m[2])}"),
    (re.compile(r"Expected `str` matching regex '\^\(([a-zA-Z|]+)\)\$'"), lambda m: f"must be {_one_of(m[1])}"),
    (re.compile(r"Expected `str` matching regex (['\"])(.*)\1"), lambda m: _pattern(m[2])),
    (re.compile(r"Expected `str` of length (>=|<=) (\d+)"), lambda m: f"{_have(m[1])} {m[2]} characters"),
    (re.compile(r"Expected `array` of length (>=|<=) (\d+)"), lambda m: f"{_have(m[1])} {m[2]} entries"),
    (re.compile(r"Object missing required field `(\w+)`"), lambda m: f"{m[1]} is missing"),
    (re.compile(r"Object contains unknown field `(.*)`"), lambda m: f"there is no {m[1]!r}"),
    (re.compile(r"Expected `([^`]+)`, got `([^`]+)`"), lambda m: f"must be {_kinds(m[1])}"),
)


def in_words(said: str) -> tuple[str, str]:
    """The place within the value that is wrong, such as `[0].sites[1].id`, and why. The place is empty where it is the
    value itself. What is not msgspec's stays as it is; no value is repeated."""
    place = _PATH.search(said)
    why = said[: place.start()] if place else said
    for pattern, words in _LOOKED_AT:
        found = pattern.fullmatch(why)
        if found:
            why = words(found)
            break
    return place[1] if place else "", why


def _number(text: str) -> str:
    return text.removesuffix(".0")


def _one_of(choices: str) -> str:
    *most, last = choices.split("|")
    return f"{', '.join(most)} or {last}" if most else last


def _pattern(regex: str) -> str:
    return _PATTERNS.get(regex.replace("\\\\", "\\"), "has another form")


def _have(sign: str) -> str:
    return "must have at least" if sign == ">=" else "must have at most"


def _kinds(expected: str) -> str:
    known = [_KINDS.get(each.strip(), each.strip()) for each in expected.split("|") if each.strip() != "null"]
    return " or ".join(known)
