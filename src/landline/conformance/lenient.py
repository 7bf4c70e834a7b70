"""Group K, how a request may be spelled and refused: paths, codings, credentials of streams, bodies that nobody reads
(specification 2, 3.1, 7.1, D-52)."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from urllib.parse import urlsplit

from landline.conformance import wire
from landline.conformance.checks import Group, Need
from landline.conformance.directline import DirectLine, dumps, edited
from landline.conformance.expect import Violation, accepted, expect, refused, same
from landline.conformance.subject import USER, Conversation, Subject
from landline.conformance.transport import MESSAGE, UNKNOWN
from landline.conformance.uploads import FORM, file_part, form, upload

group = Group("K", "Revision 2")

MIB = 1 << 20
GZIP = {"Content-Encoding": "gzip"}


def doubled(domain: str) -> tuple[str, ...]:
    """A domain as it is spelled by those who join its parts with a slash too many."""
    url = urlsplit(domain)
    prefix = url.path.removesuffix("/v3/directline")
    paths = (f"/{url.path}", f"{prefix}/v3//directline", f"{prefix}///v3/directline", f"{url.path}/")
    return tuple(url._replace(path="").geturl() + path for path in paths)


async def elsewhere(s: Subject, path: str) -> int:
    """The status at a path that is not below the domain."""
    url = urlsplit(s.domain)
    root = url._replace(path="").geturl()
    return await wire.status(root, "GET", url.path.removesuffix("/v3/directline") + path)


@group.check(198)
async def slashes(s: Subject) -> None:
    """`//v3/directline/conversations`, `/v3//directline/tokens/generate`, the stream and a DirectLineJS whose `domain`
    ends in a slash → as with single slashes; no redirect. `//admin/sites`, `//b/<key>/v3/…` → 404.

    Without DirectLineJS, and with a key that no bot has."""
    talk = await s.start()
    await talk.sent("hello")
    for domain in doubled(s.domain):
        accepted(await s.client.request("POST", f"{domain}/conversations"), 201)
        accepted(await s.client.request("POST", f"{domain}/tokens/generate"))
        page = await talk.client.request("GET", f"{domain}//conversations/{talk.id}//activities//")
        same(accepted(page).json, (await talk.read()).json, f"the page at {domain}")
        stream = talk.opened.stream_url.replace(s.domain.partition("://")[2], domain.partition("://")[2], 1)
        same((await talk.client.handshake(stream)).status, 101, f"the stream at {domain}")
    for path in ("//admin/sites", "//b/key/v3/conversations"):
        same(await elsewhere(s, path), 404, path)


@group.check(200, Need.BOT)
async def compressed(s: Subject) -> None:
    """`Content-Encoding: gzip` on a send, on an upload (both forms) and on a connector call → 415 with
    `Accept-Encoding: identity`; nothing stored."""
    talk = await s.start()
    packed = gzip.compress(dumps(MESSAGE))
    picture = {**GZIP, "Content-Type": "image/png"}
    answers = [
        await talk.client.request("POST", f"/conversations/{talk.id}/activities", data=packed, headers=GZIP),
        await upload(talk.client, talk.id, packed, picture),
        await upload(talk.client, talk.id, gzip.compress(form(file_part("a.png", b"x"))), {**FORM, **GZIP}),
        await s.client.request("POST", "/conversations", data=packed, headers=GZIP),
    ]
    for answer in answers:
        refused(answer, 415, "BadArgument")
        same(answer.headers.get("Accept-Encoding"), "identity", "Accept-Encoding")
    await talk.sent("the join comes first")
    url = f"{s.bot.service_url(talk.id)}/v3/conversations/{talk.id}/activities"
    call = await s.bot.request("POST", url, data=packed, headers={**GZIP, "Content-Type": "application/json"})
    same((call.status, call.headers.get("Accept-Encoding")), (415, "identity"), "the bot's call")
    path = f"/conversations/{talk.id}/activities"
    accepted(
        await talk.client.request("POST", path, data=dumps(MESSAGE), headers={"Content-Encoding": "identity"}), 200
    )
    same(len(await talk.log()), 2, "activities")


async def opening(client: DirectLine, talk: Conversation, credential: str | None, **edits: str | None) -> int | str:
    """What a handshake with this credential in its header comes to: 101, or the error code behind a status."""
    headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
    answer = await client.handshake(edited(talk.opened.stream_url, **edits), headers)
    return 101 if answer.status == 101 else f"{answer.status} {answer.code}"


@group.check(204)
async def stream_by_header(s: Subject) -> None:
    """Stream with a token in `Authorization` and no `t` → 101; with a secret → 403; a foreign token → 403; with both,
    `t` decides."""
    talk, other = await s.start(), await s.start()
    token, foreign = str(talk.opened.token), str(other.opened.token)
    same(await opening(s.client, talk, token, t=None), 101, "with a token")
    same(await opening(s.client, talk, s.secret, t=None), "403 BadArgument", "with a secret")
    same(await opening(s.client, talk, foreign, t=None), "403 BadArgument", "with a foreign token")
    same(await opening(s.client, talk, None, t=None), "401 BadArgument", "with nothing")
    same(await opening(s.client, talk, foreign), 101, "with a ticket and a foreign token")
    same(await opening(s.client, talk, token, t=foreign), "403 BadArgument", "with a token and a foreign ticket")


async def unread(s: Subject, path: str, size: int, *lines: str, version: str = "1.1") -> int:
    """The status that a client sees which sends all of its body before it looks. Raises `Violation` where it sees
    none."""
    head = wire.head(s.domain, "POST", path, f"Content-Length: {size}", *lines)
    head = head.replace(b" HTTP/1.1\r\n", f" HTTP/{version}\r\n".encode(), 1)
    async with asyncio.timeout(60), wire.connected(s.domain) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(head)
            for _ in range(size // MIB):
                writer.write(bytes(MIB))
                await writer.drain()
        try:
            first = await reader.readline()
        except ConnectionError:
            first = b""
    parts = first.split(b" ")
    expect(len(parts) > 1 and parts[1].isdigit(), f"{path}: no answer but {first!r}")
    return int(parts[1])


@group.check(210)
async def refused_before_the_body(s: Subject) -> None:
    """A refusal given before the body was read (401, 403, 404, 413, 415, 429, 503; `Connection: close` and HTTP/1.0, 2
    MiB and 22 MiB still coming) reaches the client: the connection is half-closed and read on for a moment, not reset.
    Behind a plain HTTP/1.0 proxy the client sees 403 and 413, never 502.

    Without a proxy, without 429 and 503."""
    talk = await s.start()
    who = f"Authorization: Bearer {talk.opened.token}"
    uploads, picture = f"/conversations/{talk.id}/upload?userId={USER}", "Content-Type: image/png"
    gone = f"Authorization: Bearer {s.secret}"
    for ways in (("1.1", "Connection: close"), ("1.0", "X: x")):
        version, *lines = ways
        for path, more, size, status in (
            (uploads, [], 2 * MIB, 401),
            (uploads, ["Authorization: Bearer x"], 2 * MIB, 403),
            (f"/conversations/{UNKNOWN}/upload?userId={USER}", [gone], 2 * MIB, 404),
            (uploads, [who, picture, "Content-Encoding: gzip"], 2 * MIB, 415),
            (f"/conversations/{talk.id}/activities", [who], 2 * MIB, 413),
            (uploads, [who, picture], 22 * MIB, 413),
        ):
            same(await unread(s, path, size, *more, *lines, version=version), status, f"{status}, HTTP/{version}")


async def odd(s: Subject, first: str, *lines: str, body: bytes = b"") -> int:
    """The status of a request whose head is written out here; the server has to hang up after it."""
    async with asyncio.timeout(10), wire.connected(s.domain) as (reader, writer):
        writer.write("\r\n".join([first, *lines, "", ""]).encode() + body)
        said = await reader.read()
    try:
        return int(said.split(b" ")[1])
    except (IndexError, ValueError):
        raise Violation(f"no answer but {said!r}") from None


@group.check(211)
async def hosts_and_codings(s: Subject) -> None:
    """HTTP/1.1 without `Host`, with an empty or an impossible one → 400; `Transfer-Encoding` other than `chunked` alone
    → 501; HTTP/1.0 with chunked → 400."""
    url = urlsplit(s.domain)
    start, host = f"POST {url.path}/conversations HTTP/1.1", f"Host: {url.netloc}"
    who = f"Authorization: Bearer {s.secret}"
    empty = "Content-Length: 0"
    same(await odd(s, start, who, empty), 400, "without Host")
    for impossible in ("", "a b", "user@here", "here:99999", "here/there"):
        same(await odd(s, start, f"Host: {impossible}", who, empty), 400, f"Host: {impossible}")
    for coding in ("gzip", "gzip, chunked", "chunked, gzip", "identity"):
        line = f"Transfer-Encoding: {coding}"
        same(await odd(s, start, host, who, line, body=b"0\r\n\r\n"), 501, line)
    old = start.replace("1.1", "1.0")
    same(await odd(s, old, host, who, "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400, "chunked in HTTP/1.0")
    same(await odd(s, start, host, who, "Connection: close", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 201, "")
