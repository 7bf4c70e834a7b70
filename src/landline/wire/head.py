"""What the head of a request may say, beyond what the parser sees to (spec 3.1, D-52; RFC 9112).

Only rules: nothing here knows a connection. What a head says of its own framing or of its authority in two ways is
refused, because whoever stands in front of us may have read it in the other way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import httptools

Header = tuple[bytes, bytes]

_HOST = re.compile(rb"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:([0-9]{0,5}))?")
_ANY_TARGET = re.compile(rb"[\r\n]*[A-Za-z]{1,32} [^\r\n]* HTTP/1\.[01]\r\n")
_ONCE = (b"host", b"content-length")
_PORTS = 65536


class NotAcceptable(Exception):
    """Step 0 of spec 3.4."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def fields_of(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """The headers by name, the first of several. Raises `NotAcceptable` where two of a name cannot both be meant
    (D-52).

    Two equal `Authorization` lines are one that was written twice, as libraries do that have a way to set a header and
    a way to add one. Two equal `Host` or `Content-Length` are refused all the same (RFC 9112, sections 3.2 and 6.3)."""
    fields = dict(reversed(headers))
    if len(fields) < len(headers):
        names = [name for name, _ in headers]
        for name in _ONCE:
            if names.count(name) > 1:
                raise NotAcceptable(400, f"Header is given twice: {name.decode()}")
        if len({value for name, value in headers if name == b"authorization"}) > 1:
            raise NotAcceptable(400, "Authorization is given twice, and differs")
    return fields


def check_fields(version: str, fields: Mapping[bytes, bytes]) -> None:
    """Whether these belong to a request of that version. Raises `NotAcceptable` (statement 211)."""
    host = fields.get(b"host")
    if host is None:
        if version != "1.0":
            raise NotAcceptable(400, "Host header is missing")
    elif not is_host(host):
        raise NotAcceptable(400, "Host header is not valid")
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if version == "1.0":
            raise NotAcceptable(400, "HTTP/1.0 has no Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise NotAcceptable(501, "Transfer-Encoding is not chunked alone")


def is_host(text: bytes) -> bool:
    """Whether it is a host and a port that a URL can have (RFC 3986, section 3.2), in the forms that are in use."""
    form = _HOST.fullmatch(text)
    return form is not None and int(form[3] or 0) < _PORTS


def bad_target(data: bytes) -> NotAcceptable | None:
    """What is wrong with a request at the beginning of `data` whose target the parser does not take; None where it is
    no request of HTTP/1 at all."""
    return NotAcceptable(400, "URL is malformed") if _ANY_TARGET.match(data) else None


def authority(url: bytes) -> bytes | None:
    """The host and port that a request target in absolute form names; they count in place of `Host` (RFC 9112, section
    3.2.2). None in the form that nearly all have. Raises `httptools.HttpParserError` for what is no URL."""
    if url.startswith(b"/") or url == b"*":
        return None
    parsed = httptools.parse_url(url)
    host = parsed.host
    if not host:
        return None
    if b":" in host:
        host = b"[%b]" % host
    return b"%b:%d" % (host, parsed.port) if parsed.port else host


def path_and_query(url: bytes) -> tuple[bytes, bytes]:
    """The two parts of a request target that matter. The form that nearly all have needs no parser. Raises
    `httptools.HttpParserError` for what is no URL."""
    if url.startswith(b"/"):
        path, _, query = url.partition(b"#")[0].partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path or b"/", parsed.query or b""
