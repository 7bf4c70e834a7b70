"""What every answer has in common, whoever makes it: its headers for pages of other origins, and the id of its
operation (spec 3.2, 3.3, D-5). And what a request brings beside what ASGI says of it.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from landline.wire.wheel import Wheel

EXTENSION = "landline"
"""The ASGI extension under which our endpoints find what our HTTP tells them: an `Arrival`."""

JSON = (b"content-type", b"application/json; charset=utf-8")
_NO_REFERRER = (b"referrer-policy", b"no-referrer")
_VARY = (b"vary", b"Origin")
_EXPOSED = (b"access-control-expose-headers", b"Retry-After, X-Correlating-OperationId, X-DirectLine-Replay")
_CREDENTIALS = (b"access-control-allow-credentials", b"true")

_process = secrets.token_hex(8)
_numbers = itertools.count(1)

Header = tuple[bytes, bytes]


class Arrival(NamedTuple):
    """What a request brings beside what ASGI says of it: its headers by name, the first of several; where deadlines are
    kept; a shorter way for an answer in one piece, which is given a status, header lines and a body; one for a body
    that is there already, None where it has to be received; when its first byte came, on the wheel's clock, None where
    that is now; and whether its URL was longer than may be, and was cut."""

    fields: Mapping[bytes, bytes]
    wheel: Wheel
    answer: Callable[[int, bytes, bytes], Awaitable[None]]
    whole_body: Callable[[], bytes | None] = lambda: None
    begun: float | None = None
    url_is_cut: bool = False


def operation_id() -> str:
    """Unique, and without a system call per request (D-5)."""
    return f"{_process}{next(_numbers):012x}"


def header_lines(headers: Sequence[Header]) -> bytes:
    """Headers as they go over the wire. Raises `ValueError` for what would become two."""
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines and not lines.count(b"\r") == lines.count(b"\n") == len(headers):
        raise ValueError("a header has a line break in it")
    return lines


def cross_origin(origin: bytes | None, allowed: frozenset[str]) -> tuple[Header, ...]:
    """What every answer under `/v3/directline` has, refusals included: without it a page sees status 0 (3.2, 3.3).

    `allowed` empty means any origin. It varies also without one: a browser may keep what it got for an image, and must
    not take it for the answer to a script.
    """
    if origin is None or (allowed and origin.decode("latin-1").lower() not in allowed):
        return (_NO_REFERRER, _VARY)
    return (_NO_REFERRER, (b"access-control-allow-origin", origin), _VARY, _EXPOSED)


@lru_cache(256)
def cross_origin_lines(origin: bytes | None, allowed: frozenset[str], *, credentials: bool = False) -> bytes:
    """The lines of `cross_origin`, which are the same for all requests of a page."""
    headers = cross_origin(origin, allowed)
    if credentials and any(name == b"access-control-allow-origin" for name, _ in headers):
        headers = (*headers, _CREDENTIALS)
    return header_lines(headers)
