"""What hostile clients throw at a server, by class, each with the answer that the specification promises.

A class is a function that yields its attacks once, with whatever varies in them taken from the dice: called again it
yields as many of the same kinds with other content. So one round costs the server what another costs, and nothing that
is remembered by what an attacker wrote can hide behind a repetition.

Everything goes out as bytes on a connection of its own; what no HTTP library would send is most of it.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from landline.conformance import uploads
from support.bot_trust import claims, forged, new_key
from support.wires import KEY, close, handshake, masked, text

DIRECT_LINE = "/v3/directline"
ACTIVITY_BYTES = 262_144
CONNECTOR_BYTES = 4 << 20
UPLOAD_BYTES = 1 << 20
"""What the server has to be told: the default makes an upload over the limit cost too much to be thrown often."""
STREAM_BYTES = 64 * 1024
SPOKEN_BYTES = 256 * 1024
FORM_BYTES = 65_536

_FOREIGN_KEY = new_key()


class Target(NamedTuple):
    """A server, and everything on it that is worth having. All but ids of conversations is secret."""

    port: int
    secret: str
    """Of the default site; its bot has no app id, and `key` in its service URL."""
    key: str
    conversation: str
    """The attackers' own. `token` and `ticket` are of it."""
    token: str
    ticket: str
    expired: str
    """A token of the same bot that has expired."""
    watched: str
    """A conversation of well-behaved people with the same bot. `watched_token` and `watched_ticket` are of it."""
    watched_token: str
    watched_ticket: str
    other_secret: str
    """Of a site of the other bot, which has an app id, `other_key` and a conversation of its own."""
    other_key: str
    app_id: str
    app_secret: str
    bot_token: str
    foreign: str
    foreign_token: str
    admin: str
    attachment: str
    """The id of something that a client uploaded, on which nothing depends but that it is known to nobody."""

    @property
    def secrets(self) -> dict[str, str]:
        """What must not be seen anywhere, by name."""
        known = ("port", "conversation", "watched", "foreign", "app_id")
        return {name: str(value) for name, value in self._asdict().items() if name not in known}

    @property
    def activities(self) -> str:
        """Where the attackers' own conversation takes activities."""
        return f"{DIRECT_LINE}/conversations/{self.conversation}/activities"

    @property
    def upload(self) -> str:
        """Where it takes files."""
        return f"{DIRECT_LINE}/conversations/{self.conversation}/upload"

    @property
    def stream(self) -> str:
        """A stream of it."""
        return f"{DIRECT_LINE}/conversations/{self.conversation}/stream?t={self.ticket}"

    def connector(self, path: str = "") -> str:
        """Where the bot without app id calls, about the attackers' conversation."""
        return f"/b/{self.key}/v3/conversations/{self.conversation}{path}"


@dataclass(frozen=True)
class Expected:
    """The answer: status and code of 3.5, or of what else the endpoint documents. No status is no answer at all."""

    status: int | None
    code: str | None = None
    plain: bool = False
    """A short text is enough for bytes that are not HTTP (D-52)."""
    closes: int | None = None
    """With 101: the code with which the socket is closed; 1006 is an end without a close frame."""


@dataclass(frozen=True)
class Attack:
    """Bytes, and what they must be answered with. `half_closes`: the attacker then says that nothing more will come.

    With nothing expected, nobody knows what they mean, and so whether there is an answer; but if there is one, it is
    well-formed and no 5xx but 501, which HTTP has for codings that nobody knows."""

    name: str
    sent: bytes
    expected: tuple[Expected, ...]
    half_closes: bool = False
    sent_later: bytes = b""
    """Sent when the first answer is there: frames behind a 101."""


def bad(status: int, code: str = "BadArgument") -> tuple[Expected, ...]:
    """Refused with an error object."""
    return (Expected(status, code),)


def good(status: int = 200) -> tuple[Expected, ...]:
    """Odd, and nothing wrong with it."""
    return (Expected(status),)


SYNTAX, ARGUMENT, MISSING = bad(400, "BadSyntax"), bad(400), bad(400, "MissingProperty")
UNKNOWN, FORBIDDEN, NOBODY = bad(404), bad(403), bad(401)
TOO_BIG = bad(413, "MessageSizeTooBig")
NO_ANSWER = (Expected(None),)
PLAIN = (Expected(400, plain=True),)


def ask(
    method: str, path: str, *headers: str, credential: str | None = None, body: bytes = b"", kind: str | None = None
) -> bytes:
    """A request as a well-behaved client would write it, `headers` aside."""
    lines = [f"{method} {path} HTTP/1.1", "Host: here"]
    lines += [f"Authorization: Bearer {credential}"] if credential is not None else []
    lines += [f"Content-Type: {kind}"] if kind else []
    lines += headers
    if method != "GET" and not any(each.lower().startswith(("content-length", "transfer-encoding")) for each in lines):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(body: bytes) -> bytes:
    """The body in one chunk, with its end."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def send(at: Target, body: bytes, *headers: str, kind: str | None = "application/json") -> bytes:
    """An activity to the attackers' own conversation, with a secret: nobody is bound."""
    return ask("POST", at.activities, *headers, credential=at.secret, body=body, kind=kind)


def message(**more: Any) -> bytes:
    """A good activity, and what is to be wrong with it."""
    return json.dumps({"type": "message", "from": {"id": "mallory"}, "text": "x"} | more).encode()


def form_of(**fields: str) -> bytes:
    """What the token endpoint is sent."""
    return "&".join(f"{name}={value}" for name, value in fields.items()).encode()


FORM = "application/x-www-form-urlencoded"
TOKEN = "/oauth2/v2.0/token"


def oversized(dice: Random, at: Target) -> Iterator[Attack]:
    """More than is taken: declared, undeclared, in the head, in depth, in number."""
    over = ACTIVITY_BYTES + dice.randint(1, 5000)
    long = "".join(dice.choices("abcdefghij", k=9000 + dice.randint(0, 9000)))

    def declares(path: str, size: int, credential: str | None = None, kind: str = "application/json") -> bytes:
        return ask("POST", path, f"Content-Length: {size}", credential=credential, kind=kind)

    yield Attack("activity, declared", declares(at.activities, over, at.token), TOO_BIG)
    yield Attack("activity, declared, by nobody", declares(at.activities, over), TOO_BIG)
    yield Attack("activity, sent", send(at, message(text="x" * over)), TOO_BIG)
    yield Attack("activity, undeclared", send(at, chunked(b"{" + b" " * over), "Transfer-Encoding: chunked"), TOO_BIG)
    yield Attack("start", declares(f"{DIRECT_LINE}/conversations", over, at.secret), TOO_BIG)
    yield Attack("generate", declares(f"{DIRECT_LINE}/tokens/generate", 10**15, at.secret), TOO_BIG)
    yield Attack("length of 30 digits", declares(at.activities, 10**30, at.token), ARGUMENT)
    yield Attack("connector", declares(at.connector("/activities"), CONNECTOR_BYTES + 1), TOO_BIG)
    yield Attack("connector upload", declares(at.connector("/attachments"), UPLOAD_BYTES + 1), TOO_BIG)
    yield Attack("admin", declares("/admin/bots", CONNECTOR_BYTES + dice.randint(1, 99), at.admin), TOO_BIG)
    yield Attack("form of the issuer", declares(TOKEN, FORM_BYTES + 1, kind=FORM), TOO_BIG)
    yield Attack(
        "too many fields for the issuer",
        ask("POST", TOKEN, body=b"&".join(b"f%d=x" % n for n in range(70)), kind=FORM),
        bad(400, "invalid_request"),
    )
    # Files
    raw = bytes([dice.randrange(256)]) * (UPLOAD_BYTES + 1)
    file = {"credential": at.token, "kind": "image/png"}
    yield Attack("file, declared", declares(at.upload, len(raw), at.token, "image/png"), TOO_BIG)
    yield Attack(
        "file, undeclared", ask("POST", at.upload, "Transfer-Encoding: chunked", body=chunked(raw), **file), TOO_BIG
    )
    many = uploads.form(*(uploads.file_part(f"{n}.png", b"x") for n in range(21)))
    yield Attack("too many files", _upload(at, many), TOO_BIG)
    big = uploads.form(uploads.activity_part({"text": "x" * over}), uploads.file_part("a.png", raw[:1000]))
    yield Attack("activity of an upload", _upload(at, big), TOO_BIG)
    # Heads
    yield Attack("path", ask("GET", f"{DIRECT_LINE}/conversations/{long}", credential=at.secret), bad(414))
    yield Attack("query", ask("GET", f"{at.activities}?watermark={long}", credential=at.token), bad(414))
    yield Attack("ticket", handshake(f"{DIRECT_LINE}/conversations/{at.conversation}/stream?t={long}"), bad(414))
    fields = [f"X-{n}: {dice.random()}" for n in range(dice.randint(101, 300))]
    yield Attack("header fields", ask("GET", at.activities, *fields, credential=at.token), bad(431))
    yield Attack("header", ask("GET", at.activities, "X: " + "x" * 33_000, credential=at.token), bad(431))
    yield Attack("header that never ends", b"GET /live HTTP/1.1\r\nX: " + b"x" * 70_000, bad(431))
    yield Attack("URL that never ends", b"GET /live?" + b"x" * 70_000, bad(414))
    yield Attack("credential", ask("GET", at.activities, credential=long), FORBIDDEN)
    yield Attack("credential of the admin API", ask("GET", "/admin/bots", credential=long), FORBIDDEN)
    # Inside JSON
    depth = dice.randint(200, 100_000)
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        value = opening * depth + b"0" + closing * depth
        if len(value) < ACTIVITY_BYTES - 100:
            yield Attack("depth", send(at, b'{"type":"message","from":{"id":"u"},"value":' + value + b"}"), SYNTAX)
        else:
            yield Attack("depth", send(at, b'{"value":' + opening * 30_000), SYNTAX)
    yield Attack("user id", _generate(at, {"user": {"id": "u" * dice.randint(257, 5000)}}), ARGUMENT)
    yield Attack("sender's id", send(at, message(**{"from": {"id": "u" * dice.randint(257, 5000)}})), ARGUMENT)
    yield Attack("watermark", ask("GET", f"{at.activities}?watermark={long[:5000]}", credential=at.token), good())
    yield Attack(
        "range",
        ask("GET", f"{DIRECT_LINE}/attachments/{at.attachment}/a", f"Range: bytes={dice.randrange(10**9, 10**17)}-"),
        bad(416),
    )


def _upload(at: Target, body: bytes, kind: str | None = None) -> bytes:
    return ask("POST", at.upload, credential=at.token, body=body, kind=kind or uploads.FORM["Content-Type"])


def _generate(at: Target, body: object) -> bytes:
    return ask(
        "POST",
        f"{DIRECT_LINE}/tokens/generate",
        credential=at.secret,
        body=json.dumps(body).encode(),
        kind="application/json",
    )


def truncated(dice: Random, at: Target) -> Iterator[Attack]:
    """What ends before its end, with or without saying so."""
    whole = message(text="".join(dice.choices("abc", k=50)))
    cut = whole[: dice.randint(1, len(whole) - 1)]
    yield Attack("JSON", send(at, cut), SYNTAX)
    yield Attack("JSON of the connector", ask("POST", at.connector("/activities"), body=cut), SYNTAX)
    yield Attack("JSON of the admin API", ask("POST", "/admin/bots", credential=at.admin, body=cut), SYNTAX)
    yield Attack(
        "JSON of a token call", ask("POST", f"{DIRECT_LINE}/tokens/generate", credential=at.secret, body=cut), SYNTAX
    )
    for name, path in (
        ("body", at.activities),
        ("file", at.upload),
        ("body of the connector", at.connector("/activities")),
    ):
        declared = f"Content-Length: {len(whole) + dice.randint(1, 1000)}"
        yield Attack(name, ask("POST", path, declared, credential=at.token, body=whole), NO_ANSWER, half_closes=True)
    yield Attack(
        "chunk",
        ask("POST", at.activities, "Transfer-Encoding: chunked", credential=at.token, body=b"ff\r\n" + whole[:40]),
        NO_ANSWER,
        half_closes=True,
    )
    sound = uploads.form(uploads.activity_part({"text": "x"}), uploads.file_part("a.png", dice.randbytes(3000)))
    # An end that lacks no more than its last hyphens or line break is an end to many parsers.
    yield Attack("form", _upload(at, sound[: dice.randint(1, len(sound) - len(uploads.BOUNDARY) - 8)]), SYNTAX)
    yield Attack("form without a body", _upload(at, b""), SYNTAX)
    yield Attack("form without a boundary", _upload(at, sound, "multipart/form-data"), SYNTAX)
    head = ask("GET", at.activities, credential=at.token)
    yield Attack("head", head[: dice.randint(1, len(head) - 1)], NO_ANSWER, half_closes=True)
    yield Attack("nothing at all", b"", NO_ANSWER, half_closes=True)
    yield Attack("token", ask("GET", at.activities, credential=at.token[: -dice.randint(1, 60)]), FORBIDDEN)
    yield Attack("ticket", handshake(at.stream[: -dice.randint(1, len(at.ticket) - 1)]), FORBIDDEN)
    yield Attack("secret", ask("POST", f"{DIRECT_LINE}/conversations", credential=at.secret[:-1]), FORBIDDEN)
    yield Attack("escape in the path", ask("GET", f"{DIRECT_LINE}/conversations/%4", credential=at.secret), UNKNOWN)
    yield Attack(
        "frame",
        handshake(at.stream) + text("x" * 50)[: dice.randint(1, 50)],
        (Expected(101, closes=1006),),
        half_closes=True,
    )
    basic = base64.b64encode(f"{at.app_id}:{at.app_secret}".encode()).decode().rstrip("=")[: -dice.randint(1, 9)]
    yield Attack(
        "credentials of the issuer",
        ask("POST", TOKEN, f"Authorization: Basic {basic}", body=b"grant_type=client_credentials", kind=FORM),
        bad(401, "invalid_client"),
    )


def mistyped(dice: Random, at: Target) -> Iterator[Attack]:
    """JSON that is none of what it should be, and bodies that call themselves something else."""
    for value in (b"[{}]", b'"x"', b"17", b"true", b"null", b"[]", b"-1e3"):
        yield Attack(f"activity is {value!r}", send(at, value), ARGUMENT)
        yield Attack(f"connector is sent {value!r}", ask("POST", at.connector("/activities"), body=value), ARGUMENT)
        yield Attack(
            f"parameters are {value!r}",
            ask("POST", f"{DIRECT_LINE}/conversations", credential=at.secret, body=value),
            good(201) if value == b"null" else ARGUMENT,
        )
        yield Attack(f"admin is sent {value!r}", ask("POST", "/admin/sites", credential=at.admin, body=value), ARGUMENT)
    odd: tuple[Any, ...] = (1, 2.5, True, {"a": 1}, ["x"])
    for wrong in odd:
        yield Attack(f"type is {wrong}", send(at, message(type=wrong)), ARGUMENT)
        an_id = good() if type(wrong) is int else ARGUMENT  # whole numbers are taken as text
        yield Attack(f"sender's id is {wrong}", send(at, message(**{"from": {"id": wrong}})), an_id)
        yield Attack(f"user's id is {wrong}", _generate(at, {"user": {"id": wrong}}), an_id)
    for wrong in (1, "x", True, ["x"]):
        yield Attack(f"sender is {wrong}", send(at, message(**{"from": wrong})), ARGUMENT)
        yield Attack(f"user is {wrong}", _generate(at, {"user": wrong}), ARGUMENT)
    for wrong in (1, "x", True, {"a": 1}):
        yield Attack(f"attachments are {wrong}", send(at, message(attachments=wrong)), ARGUMENT)
        yield Attack(f"entities are {wrong}", send(at, message(entities=wrong)), ARGUMENT)
        yield Attack(f"origins are {wrong}", _generate(at, {"trustedOrigins": wrong}), ARGUMENT)
        yield Attack(f"history is {wrong}", _connector(at, "/activities/history", {"activities": wrong}), ARGUMENT)
    for origins in ([1], ["nonsense"], ["https://a/b"], [None]):
        yield Attack(f"origins are {origins}", _generate(at, {"trustedOrigins": origins}), ARGUMENT)
    yield Attack("no type", send(at, b'{"from":{"id":"u"}}'), MISSING)
    yield Attack("no type from a bot", _connector(at, "/activities", {"text": "x"}), MISSING)
    yield Attack("no sender", send(at, b'{"type":"message"}'), MISSING)
    yield Attack("sender is the bot", send(at, message(**{"from": {"id": "bot"}})), ARGUMENT)
    yield Attack("contact relation", send(at, message(type="contactRelationUpdate")), ARGUMENT)
    yield Attack("dl_ id", _as(at.token, at, message(**{"from": {"id": "dl_root"}})), good())  # the token's user wins
    for kind in ("application/xml", "text/plain", FORM, "multipart/form-data; boundary=x", ";", "json"):
        yield Attack(f"activity is {kind}", send(at, message(), kind=kind), bad(415))
        yield Attack(
            f"connector is sent {kind}", ask("POST", at.connector("/activities"), body=message(), kind=kind), bad(415)
        )
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "MKCOL", "PROPFIND"):
        yield Attack(f"{method} on activities", ask(method, at.activities, credential=at.token), bad(405))
        yield Attack(f"{method} on a stream", ask(method, at.stream), bad(405))
        yield Attack(f"{method} on forget", ask(method, "/admin/forget", credential=at.admin), bad(405))
    # The other doors
    yield Attack(
        "page size", ask("GET", at.connector(f"/pagedmembers?pageSize={dice.choice(['x', '1.5', '0x1'])}")), ARGUMENT
    )
    yield Attack("continuation", ask("GET", at.connector("/pagedmembers?continuationToken=x")), ARGUMENT)
    yield Attack("base64", _connector(at, "/attachments", {"name": "a", "originalBase64": "!"}), ARGUMENT)
    yield Attack("no base64", _connector(at, "/attachments", {"name": "a"}), MISSING)
    for body, expected in (
        ({"endpoint": "http://127.0.0.1:1"}, MISSING),
        ({"id": 17}, ARGUMENT),
        ({"id": ""}, ARGUMENT),
        ({"id": "fine", "nonsense": 1}, ARGUMENT),
        ({"id": "fine", "endpoint": ["x"]}, ARGUMENT),
        ({"id": "bot"}, bad(409, "Conflict")),
    ):
        yield Attack(f"admin is sent {body}", _admin(at, "/bots", body), expected)
    yield Attack(
        "number of a secret", ask("POST", "/admin/sites/default/secrets/3/rotate", credential=at.admin), UNKNOWN
    )
    yield Attack("person", _admin(at, "/forget", {"user": ["mallory"]}), ARGUMENT)
    for body, kind, code in (
        (b"{}", "application/json", "invalid_request"),
        (b"grant_type=password", FORM, "unsupported_grant_type"),
        (b"", FORM, "invalid_request"),
        (b"grant_type=client_credentials&client_id=a&client_id=b", FORM, "invalid_request"),
    ):
        yield Attack(f"issuer is sent {body!r}", ask("POST", TOKEN, body=body, kind=kind), bad(400, code))
    scope = form_of(grant_type="client_credentials", client_id=at.app_id, client_secret=at.app_secret, scope="x")
    yield Attack("scope", ask("POST", TOKEN, body=scope, kind=FORM), bad(400, "invalid_scope"))


def _connector(at: Target, path: str, body: object) -> bytes:
    return ask("POST", at.connector(path), body=json.dumps(body).encode(), kind="application/json")


def _admin(at: Target, path: str, body: object) -> bytes:
    return ask("POST", f"/admin{path}", credential=at.admin, body=json.dumps(body).encode(), kind="application/json")


def _as(credential: str, at: Target, body: bytes) -> bytes:
    return ask("POST", at.activities, credential=credential, body=body, kind="application/json")


def wrongly_encoded(dice: Random, at: Target) -> Iterator[Attack]:
    """Text that is not UTF-8, halves of characters, bodies in a coding nobody asked for, bytes that are not HTTP."""
    whole = message(text="é" * dice.randint(1, 50))
    stray = bytes([dice.randrange(0x80, 0xC0)])
    in_text = b'{"type":"message","from":{"id":"u"},"text":"%b"}'
    for name, body in (
        ("UTF-16", whole.decode().encode("utf-16")),
        ("UTF-16 without a mark", whole.decode().encode("utf-16-le")),
        ("UTF-32", whole.decode().encode("utf-32-be")),
        ("Latin-1", in_text % "é".encode("latin-1")),
        ("stray byte", in_text % stray),
        ("stray byte behind the end", whole + stray),
        ("overlong", in_text % b"\xc0\xaf"),
        ("encoded surrogate", in_text % b"\xed\xa0\x80"),
        ("beyond Unicode", in_text % b"\xf5\x80\x80\x80"),
        ("cut character", in_text % "😀".encode()[: dice.randint(1, 3)]),
        ("control character", in_text % bytes([dice.randrange(32)])),
        ("gzip", gzip.compress(whole)),
        ("noise", dice.randbytes(dice.randint(1, 2000)).replace(b"\n", b"") + b"\xff"),
    ):
        yield Attack(f"activity in {name}", send(at, body), SYNTAX)
        yield Attack(f"connector in {name}", ask("POST", at.connector("/activities"), body=body), SYNTAX)
        yield Attack(f"admin in {name}", ask("POST", "/admin/bots", credential=at.admin, body=body), SYNTAX)
    marked = b"\xef\xbb\xbf" + whole
    yield Attack("activity behind a byte order mark", send(at, marked), good())
    yield Attack("connector behind a byte order mark", ask("POST", at.connector("/activities"), body=marked), good())
    half = rb"\ud8" + b"%02x" % dice.randrange(256)
    for name, body in (
        ("property", b'{"type":"message","from":{"id":"u"},"%b":1}' % half),
        ("type", b'{"type":"%b","from":{"id":"u"}}' % half),
        ("sender", b'{"type":"message","from":{"id":"%b"}}' % half),
    ):
        yield Attack(f"half a surrogate pair in the {name}", send(at, body), ARGUMENT)
    yield Attack(
        "half a surrogate pair for the admin API",
        ask("POST", "/admin/bots", credential=at.admin, body=b'{"id":"%b"}' % half),
        ARGUMENT,
    )
    yield Attack(
        "form that is no UTF-8", ask("POST", TOKEN, body=b"grant_type=" + stray, kind=FORM), bad(400, "invalid_request")
    )
    yield Attack(
        "escape that is no UTF-8", ask("POST", TOKEN, body=b"grant_type=%FF%FE", kind=FORM), bad(400, "invalid_request")
    )
    yield Attack(
        "path that is no UTF-8", ask("GET", f"{DIRECT_LINE}/conversations/%FF%C0%AF", credential=at.secret), UNKNOWN
    )
    yield Attack(
        "path that is no UTF-8, with a token",
        ask("GET", f"{DIRECT_LINE}/conversations/%FF", credential=at.token),
        FORBIDDEN,
    )
    yield Attack("credential that is no ASCII", ask("GET", at.activities, credential="é\xff"), FORBIDDEN)
    yield Attack("ticket that is no ASCII", handshake(at.stream + "%FF%00"), FORBIDDEN)
    yield Attack(
        "raw byte in the path",
        ask("GET", f"{DIRECT_LINE}/conversations/\xff", credential=at.secret),
        ARGUMENT,
    )
    broken = b"--x\r\nContent-Disposition\x00: form-data\r\n\r\n\r\n--x--\r\n"
    yield Attack("head of a part", _upload(at, broken, "multipart/form-data; boundary=x"), SYNTAX)
    # The coding of HTTP itself
    for name, line in (
        ("NUL in a header", "X: a\0b"),
        ("folded header", "X: a\r\n b"),
        ("space before the colon", "X : a"),
        ("no colon", "nonsense"),
        ("negative length", "Content-Length: -1"),
        ("length in hex", "Content-Length: 0x10"),
    ):
        yield Attack(name, ask("POST", at.activities, line, credential=at.token), ARGUMENT)
    yield Attack(
        "coding nobody knows", ask("POST", at.activities, "Transfer-Encoding: gzip", credential=at.token), bad(501)
    )
    yield Attack(
        "chunk size",
        ask("POST", at.activities, "Transfer-Encoding: chunked", credential=at.token, body=b"zz\r\n"),
        ARGUMENT,
    )
    yield Attack(
        "version", f"GET {at.activities} HTTP/{dice.randint(3, 9)}.{dice.randint(0, 9)}\r\n\r\n".encode(), ARGUMENT
    )
    yield Attack("method", ask("FETCH", at.activities, credential=at.token), bad(405))
    yield Attack("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + dice.randbytes(100), PLAIN)
    yield Attack("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + dice.randbytes(20), (*PLAIN, *ARGUMENT))


def duplicated(dice: Random, at: Target) -> Iterator[Attack]:
    """Headers that say two things, or one thing twice: what one side reads first the other may read last."""
    for door, path, as_one in (
        ("Direct Line", at.activities, FORBIDDEN),
        ("connector", at.connector("/activities"), MISSING),
        ("admin", "/admin/bots", MISSING),
        ("issuer", TOKEN, bad(400, "invalid_request")),
    ):
        twice = (f"Authorization: Bearer {at.admin}", f"AUTHORIZATION: Bearer {at.admin}")
        yield Attack(f"the same credential twice, {door}", ask("POST", path, *twice, body=b"{} "), as_one)
        for first, second in (
            (f"Authorization: Bearer {at.token}", f"Authorization: Bearer {at.secret}"),
            (f"Authorization: Bearer {at.token}", f"authorization: Basic {dice.random()}"),
            ("Content-Length: 3", "Content-Length: 3"),
            ("Content-Length: 3", "Content-Length: 4"),
            ("Content-Length: 3", "Transfer-Encoding: chunked"),
            ("Transfer-Encoding: chunked", "Content-Length: 3"),
        ):
            yield Attack(f"{first[:20]} twice, {door}", ask("POST", path, first, second, body=b"{} "), ARGUMENT)
        for host in ("here", "there", f"{dice.random()}.example"):
            yield Attack(f"two hosts, {door}", ask("GET", path, f"Host: {host}", credential=at.token), ARGUMENT)
    smuggled = chunked(b"") + send(at, message(text="smuggled"))
    yield Attack(
        "smuggled",
        ask("POST", at.activities, f"Content-Length: {len(smuggled)}", "Transfer-Encoding: chunked", body=smuggled),
        ARGUMENT,
    )
    yield Attack("two keys", handshake(at.stream, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), ARGUMENT)
    yield Attack("two versions", handshake(at.stream, "Sec-WebSocket-Version: 8"), bad(426))
    twice = f"{at.stream}&t={at.watched_ticket}"
    yield Attack(
        "two tickets, the wrong one first", handshake(twice.replace("?t=", f"?t={at.watched_ticket}&t=")), FORBIDDEN
    )


def path_tricks(dice: Random, at: Target) -> Iterator[Attack]:
    """Ways up, ways around, other spellings: what is to be found nowhere else is not found so, either."""
    up = dice.choice(["..", "%2e%2e", ".%2E", "%2E."])
    slash = dice.choice(["%2f", "%2F", "%5c", "\\"])
    for path in (
        f"{DIRECT_LINE}/../admin/bots",
        f"{DIRECT_LINE}/{up}/{up}/admin/bots",
        f"{DIRECT_LINE}/conversations/../../admin/bots",
        f"/{up}/admin/bots",
        f"//admin/bots?{dice.random()}",
        "/admin//bots",
        "/admin/./bots",
        "/ADMIN/bots",
        "/admin%2fbots",
        "/admin/bots;x=1",
        "/admin/bots%00",
        "/admin/bots%20",
        f"/b/{up}/admin/bots",
        f"/b/{at.key}{slash}..{slash}{at.other_key}/v3/conversations",
        f"/b/{at.key[:-1]}/v3/conversations",
        f"/b/{at.key}%00/v3/conversations",
        f"/b/{at.key.swapcase()}/v3/conversations",
        "/b//v3/conversations",
        "/V3/DirectLine/conversations",
        f"{DIRECT_LINE}/conversations/{at.conversation}{slash}activities",
        f"{DIRECT_LINE}/conversations/{at.conversation}/../{at.watched}",
        f"{DIRECT_LINE}/conversations/{at.conversation}/activities/{up}",
        f"{DIRECT_LINE}/conversations/{up}",
        f"{DIRECT_LINE}/conversations/%00",
        f"{DIRECT_LINE}/conversations/{at.foreign}%20",
        f"{DIRECT_LINE}/attachments/{up}{slash}..{slash}lock/x",
        f"{DIRECT_LINE}/attachments/{at.attachment[:20]}{slash}{at.attachment[20:]}/x",
        f"{DIRECT_LINE}/attachments/{at.attachment.upper()}/x",
        f"{DIRECT_LINE}/attachments/{dice.randbytes(30).hex()}/x",
        f"{DIRECT_LINE}/attachments/aside/x",
        f"/v3/attachments/{at.attachment}/views/..%2foriginal",
        f"/v3/attachments/{at.attachment}/views/thumbnail",
        "/v3/attachments/..%2f..%2fadmin-secret/views/original",
        "/" + "a/" * 2000,
        "/etc/passwd",
        "/landline.db",
        "/.git/config",
    ):
        yield Attack(f"path {path[:80]}", ask("GET", path, credential=at.secret), UNKNOWN)
        # A request like any other: where the last segment could be an id, a ticket is no credential.
        at_conversation = path.startswith(f"{DIRECT_LINE}/conversations/")
        expected = (*UNKNOWN, *ARGUMENT, *(NOBODY if at_conversation else ()))
        yield Attack(f"handshake at {path[:80]}", handshake(f"{path}?t={at.ticket}"), expected)
    yield Attack("another tenant", ask("GET", f"/{slash}x/discovery/v2.0/keys"), UNKNOWN)
    yield Attack("absolute URL", ask("GET", f"http://evil.example{at.activities}"), NOBODY)
    yield Attack(
        "absolute URL of the admin API", ask("GET", "http://evil.example/admin/bots", credential=at.token), FORBIDDEN
    )
    yield Attack("asterisk", ask("OPTIONS", "*"), (*UNKNOWN, *ARGUMENT, *bad(405)))
    yield Attack("CONNECT", ask("CONNECT", "evil.example:443"), ARGUMENT)
    yield Attack("no slash", b"GET admin/bots HTTP/1.1\r\nHost: here\r\n\r\n", (*PLAIN, *ARGUMENT))
    for host in ("a b", "a/b", "a@b", "a:b", f"evil.example/{dice.random()}", ""):
        start = ask("POST", f"{DIRECT_LINE}/conversations", credential=at.secret).replace(b"here", host.encode(), 1)
        yield Attack(f"host {host}", start, ARGUMENT)


def token_confusion(dice: Random, at: Target) -> Iterator[Attack]:
    """Good credentials for something else, and all kinds of forgeries."""
    start, refresh, generate = (
        f"{DIRECT_LINE}/{each}" for each in ("conversations", "tokens/refresh", "tokens/generate")
    )
    nobody = dice.randbytes(30).hex()
    head, payload, signature = at.token.split(".")
    place = dice.randrange(len(signature) - 1)  # the last character has bits that mean nothing
    turned = "A" if signature[place] != "A" else "B"
    said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    own = {"iss": f"http://127.0.0.1:{at.port}"}
    for name, credential in {
        "nonsense": nobody,
        "ticket": at.ticket,
        "service key": at.key,
        "app secret": at.app_secret,
        "bot's token": at.bot_token,
        "admin credential": at.admin,
        "attachment id": at.attachment,
        "turned signature": f"{head}.{payload}.{signature[:place]}{turned}{signature[place + 1 :]}",
        "no signature": f"{head}.{payload}.",
        "stripped": f"{head}.{payload}",
        "no algorithm": forged({"alg": "none"}, said),
        "another key": forged({"alg": "HS256"}, said, dice.randbytes(32)),
        "the secret as key": forged({"alg": "HS256"}, said, at.secret.encode()),
        "a public key as secret": forged({"alg": "HS256"}, said, b"-----BEGIN PUBLIC KEY-----"),
        "another algorithm": forged({"alg": "RS256"}, said, _FOREIGN_KEY),
        "a key of its own": forged({"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}}, said, bytes(3)),
        "reserved claim": forged({"alg": "HS256"}, said | {"use": "x"}, dice.randbytes(32)),
        "another conversation": forged({"alg": "HS256"}, said | {"conv": at.watched}, at.secret.encode()),
        "expired and forged": forged({"alg": "HS256"}, said | {"exp": 1}, at.secret.encode()),
        "dots": "." * dice.randint(1, 50),
        "not base64": f"{head}.!!!.{signature}",
        "five parts": f"{at.token}.x.y",
    }.items():
        method, path = dice.choice(
            [("GET", at.activities), ("POST", start), ("POST", refresh), ("POST", generate), ("POST", at.upload)]
        )
        yield Attack(f"{name} as credential", ask(method, path, credential=credential), FORBIDDEN)
        yield (
            Attack(f"{name} as ticket", handshake(f"{at.stream.split('=')[0]}={credential}"), FORBIDDEN)
            if name != "ticket"
            else Attack("good ticket elsewhere", handshake(at.stream.replace(at.conversation, at.watched)), FORBIDDEN)
        )
    for name, credential in (
        ("secret", at.secret),
        ("other secret", at.other_secret),
        ("token", at.token),
        ("bot's token", at.bot_token),
        ("service key", at.key),
        ("nonsense", nobody),
    ):
        yield Attack(
            f"{name} at the admin API",
            ask("GET", dice.choice(["/admin/bots", "/admin/sites", "/admin/failures"]), credential=credential),
            FORBIDDEN,
        )
    yield Attack("nobody at the admin API", ask("DELETE", f"/admin/conversations/{at.watched}"), NOBODY)
    yield Attack("secret refreshed", ask("POST", refresh, credential=at.secret), FORBIDDEN)
    yield Attack("token generates", ask("POST", generate, credential=at.token), FORBIDDEN)
    yield Attack(
        "secret has a session", ask("GET", f"{DIRECT_LINE}/session/getsessionid", credential=at.secret), FORBIDDEN
    )
    yield Attack(
        "session without origins",
        ask("GET", f"{DIRECT_LINE}/session/getsessionid", "Origin: https://evil.example", credential=at.token),
        bad(403, "ServiceError"),
    )
    yield Attack("secret as ticket", handshake(f"{at.stream.split('=')[0]}={at.secret}"), FORBIDDEN)
    for method, path in (("GET", at.activities), ("POST", refresh), ("POST", start)):
        yield Attack(
            "expired",
            ask(method, path, credential=at.expired),
            bad(403, "TokenExpired"),
        )
    for header in (
        "",
        "Authorization: ",
        "Authorization: Bearer",
        f"Authorization: {at.token}",
        f"Authorization: Basic {at.token}",
        f"Authorization: Bearer {at.token} x",
        f"Proxy-Authorization: Bearer {at.token}",
        f"Cookie: token={at.token}",
    ):
        yield Attack(f"no bearer: {header[:25]}", ask("GET", at.activities, *([header] if header else [])), NOBODY)
    # The bot that has to show a token
    other = f"/b/{at.other_key}/v3/conversations/{at.foreign}/activities"
    yield Attack("bot without a token", ask("POST", other, body=message()), NOBODY)
    for name, credential in {
        "token": at.token,
        "secret": at.other_secret,
        "app secret": at.app_secret,
        "no algorithm": forged({"alg": "none"}, claims(appid=at.app_id, **own)),
        "a key of its own": forged({"alg": "RS256", "kid": nobody}, claims(appid=at.app_id, **own), _FOREIGN_KEY),
        "HMAC": forged({"alg": "HS256"}, claims(appid=at.app_id, **own), at.app_secret.encode()),
        "another issuer": forged({"alg": "RS256"}, claims(appid=at.app_id, iss="https://evil.example"), _FOREIGN_KEY),
    }.items():
        yield Attack(f"bot with {name}", ask("POST", other, credential=credential, body=message()), NOBODY)
    for app_id, secret in (
        (at.app_id, at.other_secret),
        (at.app_id, ""),
        ("", ""),
        (nobody, at.app_secret),
        (at.app_id, at.admin),
    ):
        body = form_of(grant_type="client_credentials", client_id=app_id, client_secret=secret)
        yield Attack("wrong client secret", ask("POST", TOKEN, body=body, kind=FORM), bad(401, "invalid_client"))


def other_peoples(dice: Random, at: Target) -> Iterator[Attack]:
    """Good credentials and conversations that are not theirs. Nothing may be learnt, not even whether they exist."""
    for conversation in (at.watched, at.foreign, dice.randbytes(12).hex()):
        there = f"{DIRECT_LINE}/conversations/{conversation}"
        yield Attack("reconnect", ask("GET", there, credential=at.token), FORBIDDEN)
        yield Attack("read", ask("GET", f"{there}/activities", credential=at.token), FORBIDDEN)
        yield Attack("send", ask("POST", f"{there}/activities", credential=at.token, body=message()), FORBIDDEN)
        yield Attack(
            "upload",
            ask("POST", f"{there}/upload?userId=u", credential=at.token, body=b"x", kind="image/png"),
            FORBIDDEN,
        )
        yield Attack("listen", handshake(f"{there}/stream?t={at.ticket}"), FORBIDDEN)
        yield Attack("listen with a token", handshake(f"{there}/stream?t={at.token}"), FORBIDDEN)
        yield Attack("speak", handshake(f"{there}/stream/multimodal?t={at.ticket}"), FORBIDDEN)
    for conversation, secret in ((at.watched, at.other_secret), (at.foreign, at.secret)):
        there = f"{DIRECT_LINE}/conversations/{conversation}"
        for method, path in (
            ("GET", there),
            ("GET", f"{there}/activities"),
            ("POST", f"{there}/activities"),
            ("POST", f"{there}/upload"),
        ):
            yield Attack("with the secret of another bot", ask(method, path, credential=secret), UNKNOWN)
    # A bot that has proven who it is may know that the conversation exists, and no more (bot 8, 91 and 93).
    for key, credential, conversation, expected in (
        (at.other_key, at.bot_token, at.watched, FORBIDDEN),
        (at.key, None, at.foreign, UNKNOWN),
    ):
        there = f"/b/{key}/v3/conversations/{conversation}"
        number = f"{conversation}%7C{dice.randrange(5):07}"
        for method, path in (
            ("POST", "/activities"),
            ("POST", f"/activities/{number}"),
            ("PUT", f"/activities/{number}"),
            ("DELETE", f"/activities/{number}"),
            ("POST", "/activities/history"),
            ("GET", "/members"),
            ("GET", "/pagedmembers"),
            ("DELETE", "/members/user"),
            ("POST", "/attachments"),
        ):
            yield Attack(
                "another bot",
                ask(method, there + path, credential=credential, body=message() if method in ("POST", "PUT") else b""),
                expected,
            )
    info = f"/b/{at.other_key}/v3/attachments/{at.attachment}"
    yield Attack("file of another bot", ask("GET", info, credential=at.bot_token), UNKNOWN)
    yield Attack(
        "activity of a user",
        ask("PUT", at.connector(f"/activities/{at.conversation}%7C0000000"), body=message()),
        UNKNOWN,
    )
    yield Attack(
        "activity of another conversation",
        ask("PUT", at.connector(f"/activities/{at.watched}%7C0000001"), body=message()),
        UNKNOWN,
    )
    yield Attack(
        "unknown to the operator",
        ask("DELETE", f"/admin/conversations/{dice.randbytes(12).hex()}", credential=at.admin),
        UNKNOWN,
    )


def misplaced(dice: Random, at: Target) -> Iterator[Attack]:
    """Credentials where they do not belong, and from where they could come into a log."""
    secrets = list(at.secrets.values())
    dice.shuffle(secrets)
    for one in secrets:
        encoded = base64.b64encode(f"x:{one}".encode()).decode()
        yield Attack("in a path", ask("GET", f"{DIRECT_LINE}/conversations/{one}", credential=at.token), FORBIDDEN)
        yield Attack("in an unknown path", ask("GET", f"/{one}/{one}", credential=at.token), UNKNOWN)
        yield Attack("in the path of an operator", ask("DELETE", f"/admin/sites/{one}", credential=at.admin), UNKNOWN)
        yield Attack(
            "as the name of a failure", ask("POST", f"/admin/failures/{one}/redeliver", credential=at.admin), UNKNOWN
        )
        yield Attack("as service key", ask("GET", f"/b/x{one}/v3/conversations"), UNKNOWN)
        yield Attack("in a query", ask("GET", f"{at.activities}?access_token={one}&secret={one}"), NOBODY)
        yield Attack("as watermark", ask("GET", f"{at.activities}?watermark={one}", credential=at.token), good())
        yield Attack("in Basic", ask("GET", at.activities, f"Authorization: Basic {encoded}"), NOBODY)
        yield Attack("as scheme", ask("GET", at.activities, f"Authorization: {one} {one}"), NOBODY)
        yield Attack(
            "in other headers",
            ask(
                "GET",
                at.activities,
                *(
                    f"{name}: {one}"
                    for name in (
                        "X-Api-Key",
                        "Cookie",
                        "Referer",
                        "User-Agent",
                        "x-ms-bot-agent",
                        "Origin",
                        "Proxy-Authorization",
                        "X-Forwarded-For",
                        "traceparent",
                    )
                ),
            ),
            NOBODY,
        )
        yield Attack("as host", ask("GET", at.activities).replace(b"Host: here", f"Host: {one}/".encode()), ARGUMENT)
        yield Attack("as media type", send(at, message(), kind=f"{one}"), bad(415))
        yield Attack("as property", _admin(at, "/sites", {"id": "x", "bot_id": "bot", one: 1}), ARGUMENT)
        yield Attack("as id", _admin(at, "/sites", {"id": f"{one} {one}", "bot_id": one}), (*ARGUMENT, *UNKNOWN))
        yield Attack("as type", send(at, json.dumps({"type": [one], one: one}).encode()), ARGUMENT)
        yield Attack("in broken JSON", send(at, b'{"' + one.encode() + b'":'), SYNTAX)
        yield Attack("as origin to trust", _generate(at, {"trustedOrigins": [one]}), ARGUMENT)
        yield Attack(
            "as client",
            ask(
                "POST",
                TOKEN,
                body=form_of(grant_type="client_credentials", client_id=one, client_secret=f"x{one}"),
                kind=FORM,
            ),
            bad(401, "invalid_client"),
        )
        yield Attack(
            "as tenant",
            ask("POST", f"/{one}{TOKEN}", body=form_of(grant_type=one), kind=FORM),
            (*bad(400, "unsupported_grant_type"), *UNKNOWN),
        )
        yield Attack("as subprotocol", handshake(at.stream + "x", f"Sec-WebSocket-Protocol: {one}"), FORBIDDEN)
        yield Attack("as method", f"{one} / HTTP/1.1\r\nHost: here\r\n\r\n".encode(), bad(405))
        yield Attack("as version", f"GET / {one}\r\nHost: here\r\n\r\n".encode(), ARGUMENT)
        yield Attack(
            "as request id",
            ask("PUT", at.connector(f"/activities/{one}"), f"x-ms-client-request-id: {one}", body=message()),
            UNKNOWN,
        )
        yield Attack("as continuation", ask("GET", at.connector(f"/pagedmembers?continuationToken={one}")), ARGUMENT)
        yield Attack(
            "as file name",
            ask(
                "POST",
                at.upload,
                f'Content-Disposition: name="{one}"; filename="{one}"',
                f"Idempotency-Key: {one}",
                credential=at.token,
                kind="multipart/form-data; boundary=x",
                body=one.encode(),
            ),
            SYNTAX,
        )
        spoken = (
            text(json.dumps({"type": [one], "text": one}))
            + text(b'{"' + one.encode())
            + text(message(**{"from": {"id": f"dl_{one}"}}))
        )
        speaking = at.stream.replace("/stream?", "/stream/multimodal?")
        yield Attack("spoken", handshake(speaking), (Expected(101, closes=1000),), sent_later=spoken + close(1000))


def handshakes(dice: Random, at: Target) -> Iterator[Attack]:
    """Requests for a stream that are none."""
    bare = f"{DIRECT_LINE}/conversations/{at.conversation}/stream"
    yield Attack("no ticket", handshake(bare), NOBODY)
    yield Attack("empty ticket", handshake(f"{bare}?t="), NOBODY)
    yield Attack("no upgrade", ask("GET", at.stream), ARGUMENT)
    for key in (b"", b"x", b"AAAA", KEY[:-1], KEY + b"=", b"!" * 24, dice.randbytes(12).hex().encode()):
        yield Attack(f"key {key!r}", handshake(at.stream, key=key), ARGUMENT)
    for version in ("", "8", "14", "13, 8", str(dice.randint(14, 10**9))):
        yield Attack(f"version {version}", handshake(at.stream, version=version), bad(426))
    yield Attack("POST", handshake(at.stream, method="POST"), bad(405))
    yield Attack("HTTP/1.0", handshake(at.stream).replace(b"HTTP/1.1", b"HTTP/1.0"), ARGUMENT)
    yield Attack("body", handshake(at.stream, "Content-Length: 4") + b"body", ARGUMENT)
    yield Attack("elsewhere", handshake(f"/admin/bots?t={at.ticket}"), NOBODY)
    yield Attack("at the connector", handshake(at.connector("/activities")), bad(405))
    yield Attack("pipelined", ask("GET", "/live") + handshake(at.stream), (Expected(200), *ARGUMENT))


def frames(dice: Random, at: Target) -> Iterator[Attack]:
    """What is sent on streams that were opened in good order."""
    noise = dice.randbytes(dice.randint(1, 100))
    payload = dice.randbytes(dice.randint(1, 100))
    flood = b"".join(masked(0x00) for _ in range(2000))
    for name, sent, code in (
        ("not masked", b"\x81\x05hello", 1002),
        ("reserved bits", masked(0x81 | dice.choice([0x10, 0x20, 0x40, 0x70]), payload), 1002),
        ("reserved opcode", masked(0x80 | dice.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), payload), 1002),
        ("ping in pieces", masked(0x09, b"x"), 1002),
        ("ping too long", masked(0x89, b"x" * 126), 1002),
        ("close of one byte", masked(0x88, b"\x03"), 1002),
        (
            "close code",
            masked(0x88, struct.pack("!H", dice.choice([0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535]))),
            1002,
        ),
        ("close reason", masked(0x88, struct.pack("!H", 1000) + b"\xff\xfe"), 1007),
        ("continuation of nothing", masked(0x80, payload), 1002),
        ("message in a message", masked(0x01, b"a") + masked(0x81, b"b"), 1002),
        ("text that is no UTF-8", masked(0x81, noise + b"\xff"), 1007),
        ("text that is no UTF-8, in pieces", masked(0x01, "é".encode()[:1]) + masked(0x80, b"x"), 1007),
        ("message too big", masked(0x81, b"", head=b"\xff" + struct.pack("!Q", STREAM_BYTES + 1)), 1009),
        ("giant", masked(0x82, payload, head=b"\xff" + struct.pack("!Q", dice.randint(2**40, 2**63 - 1))), 1009),
        ("length beyond 63 bits", masked(0x82, payload, head=b"\xff" + struct.pack("!Q", 2**63 + 1)), None),
        ("too big in pieces", masked(0x02, b"x" * 40_000) + masked(0x00, b"x" * 25_537), 1009),
        ("endless empty pieces", masked(0x01) + flood + masked(0x80, b"\xff"), 1007),
        ("many pings", b"".join(masked(0x89, noise) for _ in range(500)) + close(1000), 1000),
        ("text and binary, which nobody reads", text("x" * 1000) + masked(0x82, noise) + close(4000), 4000),
        ("HTTP", ask("GET", at.activities, credential=at.token), None),
    ):
        expected = (1002, 1009) if code is None else (code,)
        answers = tuple(Expected(101, closes=each) for each in expected)
        yield Attack(f"frame: {name}", handshake(at.stream), answers, sent_later=sent)
        yield Attack(f"early frame: {name}", handshake(at.stream) + sent, answers)
    big = masked(0x81, b"", head=b"\xff" + struct.pack("!Q", SPOKEN_BYTES + 1))
    yield Attack(
        "spoken: too big",
        handshake(at.stream.replace("/stream?", "/stream/multimodal?")),
        (Expected(101, closes=1009),),
        sent_later=big,
    )


def mutated(dice: Random, at: Target) -> Iterator[Attack]:
    """Good requests with a few bytes turned, lost, doubled or put in. None of them leaves anything behind if it is
    still good."""
    kind = "application/json"
    nameless = json.dumps({"from": {"id": "mallory"}, "text": "é" * 20}).encode()
    anonymous = uploads.form(uploads.activity_part({"type": "message"}), uploads.file_part("a.png", b"x" * 500))
    speech = masked(0x81, nameless) + masked(0x89, b"x") + masked(0x02, b"y") + masked(0x80, b"z") + close(1000, b"bye")
    whole = (
        ask("GET", f"{at.activities}?watermark=0", "Origin: https://evil.example", credential=at.token),
        ask("GET", at.activities.removesuffix("/activities"), credential=at.secret),
        ask("POST", at.activities, "Idempotency-Key: x", credential=at.token, body=nameless, kind=kind),
        ask(
            "POST", at.activities, "Transfer-Encoding: chunked", credential=at.token, body=chunked(nameless), kind=kind
        ),
        ask("POST", f"{DIRECT_LINE}/conversations", credential=at.token, body=b'{"user":{}}', kind=kind),
        ask("POST", f"{DIRECT_LINE}/tokens/refresh", credential=at.token),
        _generate(at, {"user": {"id": "dl_x", "name": "X"}, "trustedOrigins": ["https://a.example"]}),
        ask("POST", at.upload, credential=at.secret, body=anonymous, kind=uploads.FORM["Content-Type"]),
        ask("GET", f"{DIRECT_LINE}/attachments/{at.attachment}/a.png", "Range: bytes=0-9"),
        ask("GET", "/admin/sites?bot=bot", credential=at.admin),
        _admin(at, "/sites", {"id": "default", "bot_id": "bot"}),
        ask("GET", at.connector("/pagedmembers?pageSize=5")),
        _connector(at, "/activities", {"text": "no type"}),
        ask("POST", TOKEN, body=form_of(grant_type="client_credentials", client_id="x", client_secret="y"), kind=FORM),
        handshake(at.stream) + speech,
        handshake(at.stream.replace("/stream?", "/stream/multimodal?")) + speech,
    )
    for _ in range(8):
        for one in whole:
            yield Attack(one[:60].decode("latin-1").partition("HTTP")[0], _mutated(dice, one), ())


def _mutated(dice: Random, sent: bytes) -> bytes:
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(sent))
        piece = sent[at : at + dice.randint(1, 40)]
        match dice.randrange(5):
            case 0:
                sent = sent[:at] + bytes([dice.randrange(256)]) + sent[at + 1 :]
            case 1:
                sent = sent[:at] + dice.randbytes(dice.randint(1, 8)) + sent[at:]
            case 2:
                sent = sent[:at] + sent[at + len(piece) :] or b"x"
            case 3:
                sent = sent[:at] + piece * dice.randint(2, 300) + sent[at:]
            case _:
                lines = sent.split(b"\r\n")
                lines.insert(dice.randrange(len(lines)), dice.choice(lines))
                sent = b"\r\n".join(lines)
    return sent


CLASSES: tuple[Callable[[Random, Target], Iterator[Attack]], ...] = (
    oversized,
    truncated,
    mistyped,
    wrongly_encoded,
    duplicated,
    path_tricks,
    token_confusion,
    other_peoples,
    misplaced,
    handshakes,
    frames,
    mutated,
)


def attacks(dice: Random, at: Target, times: int = 1) -> list[Attack]:
    """Every attack of every class, so many times, in an order that the dice decide."""
    thrown = [
        Attack(f"{each.__name__}: {attack.name}", attack.sent, attack.expected, attack.half_closes, attack.sent_later)
        for _ in range(times)
        for each in CLASSES
        for attack in each(dice, at)
    ]
    dice.shuffle(thrown)
    return thrown
