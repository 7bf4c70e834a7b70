"""Which resource a path leads to. One spelling of every path is looked up; nothing is ever redirected (D-3).

Our own resources are found segment by segment in a tree, whose cost does not grow with their number; a list of patterns
that are tried in turn was a twentieth of what a send costs. What is not in the tree is Starlette's business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from landline.server.exchange import Resource

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
        path = _with_single_slashes(self.within(_by_segment(raw) if b"%" in raw else path))
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
        """`path` without a prefix of ours and without its one trailing slash (D-1, D-3)."""
        for prefix in self._prefixes:
            # A prefix may look like a path of ours, `/v3` for instance: it is one only if what follows is such a path.
            if f"{path}/".startswith(prefix) and self._is_ours(path[len(prefix) - 1 :]):
                path = path[len(prefix) - 1 :] or "/"
                break
        return path[:-1] if path.endswith("/") and len(path) > 1 else path

    def _is_ours(self, path: str) -> bool:
        return _room(path) in self._rooms or self._find(path.rstrip("/"))[0] is not None


def _room(path: str) -> str:
    """The first segment of a path."""
    return path[1:].partition("/")[0]


def _with_single_slashes(path: str) -> str:
    """`path` with one slash for each run of them behind the key of a bot: some bots join a path that begins with a
    slash to a service URL that ends in one (bot-side 3). In front of the key nothing changes: operators block `/b/` by
    prefix (specification 2)."""
    key, _, rest = path.removeprefix("/b/").partition("/")
    return "/".join(("/b", key, *filter(None, rest.split("/")))) if path.startswith("/b/") and key else path


def _by_segment(raw: bytes) -> str:
    """Decode each segment, and keep what would change the number of segments: an id may hold an encoded slash. What is
    kept is decoded by who reads the segment (`Exchange.path`)."""
    segments = (unquote(segment) for segment in raw.decode("latin-1").split("/"))
    return "/".join(segment.replace("%", "%25").replace("/", "%2F") for segment in segments)
