"""Which resource a path leads to. One spelling of every path is looked up; nothing is ever redirected (D-3).

Clients and bots join a base and a path with a slash too many, so under the Direct Line API, and behind the key of a
bot, any run of slashes is one. Nowhere else, and outside of the Direct Line API the first segment is not taken in
percent-encoding either: what operators block in front of us, they block by that prefix, as it is written.

Our own resources are found segment by segment in a tree, whose cost does not grow with their number; a list of patterns
that are tried in turn was a twentieth of what a send costs. What is not in the tree is Starlette's business.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from landline.core import percent
from landline.server.exchange import Resource

DIRECT_LINE = "/v3/directline"
"""What clients call, and what follows it."""
BOTS = "/b"
"""What bots call: this, the key of the bot, and what follows it."""

_RUN = re.compile(r"/{2,}")
_BOT = re.compile(BOTS + r"/[^/]+")
_KNOWN, _KNOWN_BYTES = 1024, 256
"""So many paths, none longer than this, are remembered with what they lead to: who sends into a conversation sends into
it again."""

# Keys of the tree beside segments, which are strings.
_ANY = object()
_HERE = object()


class Paths:
    """An ASGI application: the routes of this server, under `/` and under the path prefix of each of `bases`."""

    def __init__(self, routes: Iterable[BaseRoute], nowhere: ASGIApp, bases: Iterable[str | None] = ()) -> None:
        """`bases` are the URLs that clients and bots are given, so that a prefix in them works with and without a proxy
        in front that removes it. `nowhere` answers for paths that lead nowhere."""
        known = list(routes)
        self._router = Router(known, redirect_slashes=False, default=nowhere)
        self._tree: dict[Any, Any] = {}
        for route in known:
            if isinstance(route, Route) and isinstance(route.app, Resource):
                self._plant(route.path, route.app)
        self._rooms = frozenset(_room(getattr(route, "path", "/")) for route in known)
        prefixes = {unquote(urlsplit(base).path).rstrip("/") for base in bases if base}
        # The longest first, in case one lies within another.
        self._remembered = lru_cache(_KNOWN)(self._look_up)
        self._prefixes = tuple(f"{prefix}/" for prefix in sorted(prefixes, key=len, reverse=True) if prefix)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        raw: bytes = scope["raw_path"]
        look_up = self._remembered if len(raw) <= _KNOWN_BYTES else self._look_up
        scope["path"], resource, scope["path_params"] = look_up(raw, scope["path"])
        return (resource or self._router)(scope, receive, send)

    def _look_up(self, raw: bytes, path: str) -> tuple[str, Resource | None, dict[str, str]]:
        path = self.within(percent.by_segment(raw) if b"%" in raw else path)
        if b"%" in raw and not _in_direct_line(path) and not _is_literal(raw, path):
            path = raw.decode("latin-1")
        found, values = self._find(path)
        if found is None:
            return path, None, {}
        names, resource = found
        return path, resource, dict(zip(names, values, strict=True))

    def _plant(self, template: str, resource: Resource) -> None:
        node, names = self._tree, []
        for segment in template.split("/"):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node = node.setdefault(_ANY, {})
            else:
                node = node.setdefault(segment, {})
        node.setdefault(_HERE, (names, resource))  # the first of two with one template counts, as in a list

    def _find(self, path: str) -> tuple[tuple[list[str], Resource] | None, list[str]]:
        node, values = self._tree, []
        for segment in path.split("/"):
            literal = node.get(segment)
            if literal is not None:
                node = literal
            elif segment and _ANY in node:
                values.append(segment)
                node = node[_ANY]
            else:
                return None, values
        return node.get(_HERE), values

    def within(self, path: str) -> str:
        """The one spelling of `path`: without a prefix of ours (D-1), without its trailing slash, and without runs of
        slashes where they mean nothing (D-3, bot 3)."""
        if "//" in path:
            path = self._with_single_slashes(path)
        path = self._without_prefix(path)
        return path[:-1] if path.endswith("/") and len(path) > 1 else path

    def _with_single_slashes(self, path: str) -> str:
        single = _RUN.sub("/", path)
        if _in_direct_line(self._without_prefix(single)):
            return single
        inner = self._without_prefix(path)
        bot = _BOT.match(inner)
        return path if bot is None else bot[0] + _RUN.sub("/", inner[bot.end() :])

    def _without_prefix(self, path: str) -> str:
        for prefix in self._prefixes:
            # A prefix may look like a path of ours, `/v3` for instance: it is one only if what follows is such a path.
            if f"{path}/".startswith(prefix) and self._is_ours(path[len(prefix) - 1 :]):
                return path[len(prefix) - 1 :] or "/"
        return path

    def _is_ours(self, path: str) -> bool:
        return _room(path) in self._rooms or self._find(path.rstrip("/"))[0] is not None


def _in_direct_line(path: str) -> bool:
    return f"{path}/".startswith(DIRECT_LINE + "/")


def _is_literal(raw: bytes, path: str) -> bool:
    """Whether the first segment of `path`, the one spelling of what ends the path `raw`, is written as it is read."""
    written = _RUN.sub("/", raw.decode("latin-1")).rstrip("/").split("/")
    return path == "/" or written[-path.count("/")] == _room(path)


def _room(path: str) -> str:
    """The first segment of a path."""
    return path[1:].partition("/")[0]
