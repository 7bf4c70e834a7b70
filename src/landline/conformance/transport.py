"""Group A: transport, errors, CORS (specification 2, 3)."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit

from landline.conformance.checks import Group, Need
from landline.conformance.directline import (
    CONVERSATION_ID,
    WATERMARK,
    Answer,
    dumps,
    has_manners,
    is_error,
    parameter,
    readable_by,
)
from landline.conformance.expect import accepted, expect, refused, same
from landline.conformance.subject import USER, Subject

group = Group("A", "Transport, errors, CORS")

ORIGIN = "https://www.example.org"
UNKNOWN = "NoSuchConversation0000"
MESSAGE = {"type": "message", "from": {"id": USER}, "text": "hello"}
ACTIVITY_BYTES = 262_144
"""The largest activity, unless the server has another limit (10)."""
PATHS = {
    "/tokens/generate": {"POST"},
    "/tokens/refresh": {"POST"},
    "/conversations": {"POST"},
    "/conversations/{id}": {"GET"},
    "/conversations/{id}/activities": {"GET", "POST"},
    "/conversations/{id}/upload": {"POST"},
    "/conversations/{id}/stream": {"GET"},
    "/session/getsessionid": {"GET"},
}
"""The paths that the specification documents, and their methods."""


def percent(text: str) -> str:
    """Every character percent-encoded: more than any client does, and the same text."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


async def good(s: Subject, origin: str | None = None) -> list[Answer]:
    """One of each kind of good answer, as a page of `origin` gets them."""
    client = s.client.at(origin) if origin else s.client
    opened = accepted(await client.start(), 201)
    page = client.using(opened.token)
    return [
        accepted(await client.generate()),
        opened,
        accepted(await page.refresh()),
        accepted(await page.reconnect(opened.conversation_id)),
        accepted(await page.activities(opened.conversation_id)),
    ]


async def bad(s: Subject, origin: str | None = None) -> dict[int, Answer]:
    """One of each kind of error that can be had by asking, as a page of `origin` gets them."""
    client = s.client.at(origin) if origin else s.client
    opened = accepted(await client.start(), 201)
    page = client.using(opened.token)
    long_one = {**MESSAGE, "text": "x" * ACTIVITY_BYTES}
    answers = [
        await client.request("POST", "/conversations", data=b"{"),
        await client.using(None).activities(opened.conversation_id),
        await client.using("nonsense").activities(opened.conversation_id),
        await client.activities(UNKNOWN),
        await client.request("PUT", "/conversations"),
        await page.send(opened.conversation_id, long_one),
        await page.send(opened.conversation_id, MESSAGE, headers={"Content-Type": "text/xml"}),
    ]
    by_status = {answer.status: answer for answer in answers}
    same(sorted(by_status), [400, 401, 403, 404, 405, 413, 415], "the errors")
    return by_status


@group.check(1)
async def json_manners(s: Subject) -> None:
    """Any JSON response → `Content-Type: application/json` with UTF-8 and `Cache-Control: no-store`."""
    for answer in [*await good(s), *(await bad(s)).values()]:
        has_manners(answer)


@group.check(2)
async def operation_ids(s: Subject) -> None:
    """Any response → has non-empty `X-Correlating-OperationId`, different for two requests."""
    answers = [*await good(s), *(await bad(s)).values()]
    ids = [answer.headers.get("X-Correlating-OperationId", "") for answer in answers]
    expect(all(ids), ids)
    same(len(set(ids)), len(ids), "different ids")


@group.check(3)
async def error_bodies(s: Subject) -> None:
    """Any 4xx/5xx → body parses to `{"error":{"code":string,"message":string}}`."""
    for answer in (await bad(s)).values():
        is_error(answer)


@group.check(4)
async def unknown_path(s: Subject) -> None:
    """Unknown path under `/v3/directline` → 404 `BadArgument`."""
    for path in ("/nowhere", "/tokens", "/conversations/x/nowhere"):
        refused(await s.client.request("GET", path), 404, "BadArgument")


@group.check(5)
async def wrong_method(s: Subject) -> None:
    """`PUT` on `/conversations` → 405 `BadArgument` with `Allow`."""
    answer = await s.client.request("PUT", "/conversations")
    refused(answer, 405, "BadArgument")
    expect("POST" in answer.headers.get("Allow", ""), answer)


@group.check(6)
async def broken_json(s: Subject) -> None:
    """`POST /conversations` with body `{` → 400 `BadSyntax`."""
    refused(await s.client.request("POST", "/conversations", data=b"{"), 400, "BadSyntax")


@group.check(7)
async def no_object(s: Subject) -> None:
    """`POST /conversations` with body `[1]` → 400 `BadArgument`."""
    refused(await s.client.request("POST", "/conversations", data=b"[1]"), 400, "BadArgument")


@group.check(8)
async def xml(s: Subject) -> None:
    """`POST .../activities` with `Content-Type: application/xml` → 415 `BadArgument`."""
    refused(await (await s.start()).send(headers={"Content-Type": "application/xml"}), 415, "BadArgument")


@group.check(9)
async def json_without_content_type(s: Subject) -> None:
    """`POST .../activities` with JSON but no Content-Type → 200."""
    talk = await s.start()
    path = f"/conversations/{talk.id}/activities"
    accepted(await talk.client.request("POST", path, data=dumps(MESSAGE)))


@group.check(10)
async def preflights(s: Subject) -> None:
    """`OPTIONS` on every documented path without Authorization → 204 with `Access-Control-Allow-Origin` equal to the
    sent Origin."""
    for path in PATHS:
        answer = accepted(await s.client.using(None).at(ORIGIN).request("OPTIONS", path.format(id=UNKNOWN)), 204)
        same(answer.headers.get("Access-Control-Allow-Origin"), ORIGIN, f"Access-Control-Allow-Origin of {path}")


@group.check(11)
async def preflight_headers(s: Subject) -> None:
    """Preflight asking for `authorization,content-type,x-ms-bot-agent,x-requested-with` → all four allowed."""
    asked = "authorization,content-type,x-ms-bot-agent,x-requested-with"
    headers = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
    answer = accepted(await s.client.using(None).at(ORIGIN).request("OPTIONS", "/conversations", headers=headers), 204)
    allowed = {name.strip().lower() for name in answer.headers.get("Access-Control-Allow-Headers", "").split(",")}
    expect(allowed >= set(asked.split(",")), f"allowed: {allowed}")


@group.check(12, Need.BOT)
async def errors_in_pages(s: Subject) -> None:
    """401, 403, 404, 413, 429, 502 answers to a request with `Origin` → carry `Access-Control-Allow-Origin` equal to
    it."""
    answers = await bad(s, ORIGIN)
    talk = await s.start()
    page = talk.client.at(ORIGIN)
    many = list(await asyncio.gather(*(page.send(talk.id, "too often") for _ in range(60))))
    rejected = await s.start()
    s.bot.answer(500)
    many.append(await rejected.client.at(ORIGIN).send(rejected.id, "rejected"))
    answers |= {answer.status: answer for answer in many}
    for status in (401, 403, 404, 413, 429, 502):
        expect(status in answers, f"no answer {status}")
        same(answers[status].headers.get("Access-Control-Allow-Origin"), ORIGIN, f"header of the {status}")


@group.check(13)
async def exposed_headers(s: Subject) -> None:
    """Responses with Origin → `Access-Control-Expose-Headers` contains `Retry-After`."""
    for answer in [*await good(s, ORIGIN), *(await bad(s, ORIGIN)).values()]:
        readable_by(answer, ORIGIN)


@group.check(14)
async def credentials_in_pages(s: Subject) -> None:
    """`session/getsessionid` with Origin → `Access-Control-Allow-Credentials: true` and the origin is not `*`; other
    endpoints do not send the credentials header."""
    token = accepted(await s.client.generate(trustedOrigins=[ORIGIN])).token
    session = accepted(await s.client.using(token).at(ORIGIN).request("GET", "/session/getsessionid"))
    same(session.headers.get("Access-Control-Allow-Credentials"), "true", "Access-Control-Allow-Credentials")
    same(session.headers.get("Access-Control-Allow-Origin"), ORIGIN, "Access-Control-Allow-Origin")
    for answer in [*await good(s, ORIGIN), *(await bad(s, ORIGIN)).values()]:
        expect("Access-Control-Allow-Credentials" not in answer.headers, answer)


@group.check(15)
async def trailing_slash(s: Subject) -> None:
    """Path with one trailing slash → same result, no 3xx."""
    talk = await s.start()
    await talk.sent()
    accepted(await s.client.request("POST", "/tokens/generate/"))
    accepted(await s.client.request("POST", "/conversations/"), 201)
    accepted(await talk.client.request("POST", "/tokens/refresh/"))
    path = f"/conversations/{talk.id}"
    same(accepted(await talk.client.request("GET", f"{path}/activities/")).json, (await talk.read()).json, "the page")
    same(accepted(await talk.client.request("GET", f"{path}/")).conversation_id, talk.id, "the conversation")
    accepted(await talk.client.request("POST", f"{path}/activities/", json=MESSAGE))


@group.check(16)
async def percent_encoding(s: Subject) -> None:
    """Percent-encoded conversation id and watermark (as the .NET client sends) → same result as unencoded."""
    talk = await s.start()
    await talk.sent("one")
    watermark = (await talk.read()).watermark
    await talk.sent("two")
    odd = await talk.client.activities(percent(talk.id), percent(watermark))
    same(accepted(odd).json, (await talk.read(watermark)).json, "the page")
    same([each["text"] for each in odd.activities], ["two"], "behind the watermark")
    same(accepted(await talk.client.reconnect(percent(talk.id))).conversation_id, talk.id, "the conversation")


@group.check(17)
async def credential_before_existence(s: Subject) -> None:
    """No Authorization and unknown conversation → 401 (not 404)."""
    refused(await s.client.using(None).activities(UNKNOWN), 401, "BadArgument")


@group.check(18)
async def scope_before_existence(s: Subject) -> None:
    """T on the path of another, non-existing conversation → 403 `BadArgument` (not 404)."""
    refused(await (await s.start()).client.activities(UNKNOWN), 403, "BadArgument")


@group.check(19)
async def conversation_ids(s: Subject) -> None:
    """Conversation ids returned match `[A-Za-z0-9_-]{8,64}`."""
    for _ in range(5):
        for answer in (accepted(await s.client.generate()), accepted(await s.client.start(), 201)):
            expect(CONVERSATION_ID.fullmatch(answer.conversation_id), answer.conversation_id)


@group.check(20)
async def watermarks(s: Subject) -> None:
    """Every watermark returned matches `[A-Za-z0-9_.-]{1,64}`."""
    talk = await s.start()
    found = [(await talk.read()).watermark]
    async with talk.stream() as stream:
        await talk.sent("hello")
        await stream.until_text("hello")
        found += [each["watermark"] for each in stream.sets]
    found.append((await talk.read()).watermark)
    found.append(parameter((await talk.reconnect(found[-1])).stream_url, "watermark") or "")
    for watermark in found:
        expect(WATERMARK.fullmatch(watermark), repr(watermark))


@group.check(21)
async def long_url(s: Subject) -> None:
    """URL longer than 8 KiB → 414."""
    talk = await s.start()
    room = 8192 - len(urlsplit(talk.client.domain).path) - len(f"/conversations/{talk.id}/activities?watermark=")
    accepted(await talk.client.activities(talk.id, "x" * room))
    refused(await talk.client.activities(talk.id, "x" * (room + 1)), 414, "BadArgument")


@group.check(22, Need.CONTROL, Need.BOT)
async def public_base(s: Subject) -> None:
    """Configured public base URL with a path prefix → `streamUrl` and attachment links start with it."""
    async with s.server(public_url="https://chat.example.org/bots") as other:
        talk = await other.start()
        expect(talk.opened.stream_url.startswith("wss://chat.example.org/bots/v3/directline/"), talk.opened.stream_url)
        path = f"/conversations/{talk.id}/upload?userId={USER}"
        accepted(await talk.client.request("POST", path, data=b"bytes", headers={"Content-Type": "image/png"}))
        (activity,) = await talk.log()
        link = activity["attachments"][0]["contentUrl"]
        expect(link.startswith("https://chat.example.org/bots/"), link)


def http(url: str) -> str:
    """A stream URL as a page would be asked for."""
    return re.sub(r"^ws", "http", url)
