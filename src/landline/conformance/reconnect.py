"""Group H: reconnect and stream URL (specification 5.3, 7.1, 7.2, 8.2)."""

from __future__ import annotations

import asyncio
import time

from landline.conformance.checks import Group, Need
from landline.conformance.credentials import expired
from landline.conformance.directline import claims, edited, parameter
from landline.conformance.expect import accepted, expect, refused, same
from landline.conformance.reading import GARBAGE, three
from landline.conformance.subject import Subject
from landline.conformance.transport import UNKNOWN, http

group = Group("H", "Reconnect and stream URL")


@group.check(128)
async def answer(s: Subject) -> None:
    """RC → 200 with `conversationId`, `token`, `streamUrl`, `expires_in`; the token is new and works."""
    talk = await s.start()
    for client in (talk.client, s.client):
        opened = accepted(await client.reconnect(talk.id))
        missing = {"conversationId", "token", "streamUrl", "expires_in"} - opened.json.keys()
        expect(not missing, f"missing: {missing}")
        expect(opened.token != talk.opened.token, "the same token")
        accepted(await s.client.using(opened.token).activities(talk.id))


@group.check(129)
async def user_of_the_start(s: Subject) -> None:
    """RC with S for a conversation bound to u1 → token with `user` u1."""
    talk = await s.start(user={"id": "u1"})
    same(claims(accepted(await s.client.reconnect(talk.id)).token).get("user"), "u1", "claim user")


@group.check(130)
async def without_a_watermark(s: Subject) -> None:
    """RC without `watermark`, then stream → only activities accepted after the RC."""
    talk = await three(s)
    opened = await talk.reconnect()
    await talk.sent("four")
    async with talk.stream(opened.stream_url) as stream:
        await stream.until_text("four")
        same(stream.texts, ["four"], "the stream")


@group.check(131)
async def with_an_empty_watermark(s: Subject) -> None:
    """RC with `watermark=` (empty) → stream replays from the beginning."""
    same(await (await three(s)).stream_of("", "three"), ["one", "two", "three"], "the stream")


@group.check(132)
async def with_a_watermark(s: Subject) -> None:
    """RC with WM k → stream starts with the activity after k, nothing missing, nothing before."""
    talk = await three(s)
    async with talk.stream() as stream:
        await stream.until_text("three")
        watermarks = [each["watermark"] for each in stream.sets]
    for k, watermark in enumerate(watermarks[:-1], 1):
        same(await talk.stream_of(watermark, "three"), ["one", "two", "three"][k:], f"behind {watermark}")


@group.check(133)
async def with_garbage(s: Subject) -> None:
    """RC with garbage or another conversation's watermark → 200; stream replays from the beginning."""
    talk = await three(s)
    foreign = (await (await three(s)).read()).watermark
    for watermark in (*GARBAGE, foreign):
        same(await talk.stream_of(watermark, "three"), ["one", "two", "three"], f"behind {watermark[:20]!r}")


@group.check(134, Need.CONTROL)
async def refusals(s: Subject) -> None:
    """RC for unknown conversation with S → 404; with an expired token → 403 `TokenExpired`."""
    refused(await s.client.reconnect(UNKNOWN), 404, "BadArgument")
    async with s.brief() as brief:
        talk = await expired(brief)
        refused(await talk.client.reconnect(talk.id), 403, "TokenExpired")


@group.check(135)
async def between(s: Subject) -> None:
    """Activities accepted between RC and opening the socket → delivered."""
    talk = await three(s)
    opened = await talk.reconnect((await talk.read()).watermark)
    await talk.sent("between")
    async with talk.stream(opened.stream_url) as stream:
        await talk.sent("live")
        await stream.until_text("live")
        same(stream.texts, ["between", "live"], "the stream")


@group.check(136, slow=True)
async def too_late(s: Subject) -> None:
    """`streamUrl` opened after more than 60 s → handshake 403 `TokenExpired`."""
    async with s.quick() as quick:
        talk = await quick.start()
        url = (await talk.reconnect()).stream_url
        await asyncio.sleep(quick.pace.stream_url_s + 0.1)
        refused(await talk.client.handshake(url), 403, "TokenExpired")


@group.check(137, slow=True)
async def in_time(s: Subject) -> None:
    """`streamUrl` opened at 55 s → 101."""
    async with s.quick() as quick:
        talk = await quick.start()
        begun = time.monotonic()
        url = (await talk.reconnect()).stream_url
        await asyncio.sleep(begun + quick.pace.stream_url_s * 55 / 60 - time.monotonic())
        accepted(await talk.client.handshake(url), 101)


@group.check(138, Need.CONTROL)
async def twice(s: Subject) -> None:
    """With the stream limit set to 1: the same `streamUrl` opened twice within 60 s → second gets 101 and the first
    closes with 4409."""
    async with s.brief() as brief:
        talk = await brief.start()
        async with talk.stream() as first, talk.stream() as second:
            same((await first.until_closed())[0], 4409, "close code of the first")
            expect(second.open, "the second is closed")


@group.check(139)
async def bad_tickets(s: Subject) -> None:
    """`t` missing → 401; `t` garbage → 403 `BadArgument`; `t` of another conversation → 403 `BadArgument`."""
    talk, other = await s.start(), await s.start()
    url = talk.opened.stream_url
    refused(await talk.client.handshake(edited(url, t=None)), 401, "BadArgument")
    refused(await talk.client.handshake(edited(url, t="garbage")), 403, "BadArgument")
    foreign = parameter(other.opened.stream_url, "t")
    refused(await talk.client.handshake(edited(url, t=foreign)), 403, "BadArgument")


@group.check(140)
async def token_as_ticket(s: Subject) -> None:
    """Conversation token as `t` → 101; secret as `t` → 403."""
    talk = await s.start()
    url = talk.opened.stream_url
    accepted(await talk.client.handshake(edited(url, t=talk.opened.token)), 101)
    refused(await talk.client.handshake(edited(url, t=s.secret)), 403, "BadArgument")


@group.check(141)
async def edited_watermark(s: Subject) -> None:
    """`watermark` in the URL edited by the client to a later WM → honoured."""
    talk = await three(s)
    watermark = (await talk.read()).watermark
    async with talk.stream(edited(talk.opened.stream_url, watermark=watermark)) as stream:
        await talk.sent("four")
        await stream.until_text("four")
        same(stream.texts, ["four"], "the stream")


@group.check(142)
async def without_authorization(s: Subject) -> None:
    """Handshake without `Authorization` → 101."""
    talk = await s.start()
    accepted(await s.client.using(None).handshake(talk.opened.stream_url), 101)


@group.check(143)
async def no_upgrade(s: Subject) -> None:
    """Plain GET (no upgrade) on the stream path with valid `t` → 400 `BadArgument`."""
    talk = await s.start()
    refused(await s.client.using(None).request("GET", http(talk.opened.stream_url)), 400, "BadArgument")
