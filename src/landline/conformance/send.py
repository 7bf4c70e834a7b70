"""Group E: send (specification 5.5, 6, 8.6)."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import Any

from landline.conformance.checks import Group, Need
from landline.conformance.directline import Activity, dumps
from landline.conformance.expect import accepted, expect, refused, same
from landline.conformance.subject import USER, Conversation, Subject, until, until_texts
from landline.conformance.transport import ACTIVITY_BYTES, MESSAGE

group = Group("E", "Send")

KEPT: dict[str, Any] = {
    "channelData": {"clientActivityID": "c1", "deep": {"empty": {}, "list": [1, None, "x"]}},
    "localTimestamp": "2026-01-05T11:00:00.000+01:00",
    "localTimezone": "Europe/Berlin",
    "locale": "de-DE",
    "entities": [{"type": "ClientCapabilities", "supportsTts": True}],
    "value": {"x": 1.50, "y": [None]},
    "anUnknownField": {"of": ["whatever", 1]},
}
"""What has to come back as it was sent (6.1)."""


async def bound(s: Subject, user: str = "u1") -> Conversation:
    """A conversation whose token is bound to this user."""
    return await s.started(accepted(await s.client.start(user={"id": user}), 201))


async def unbound(s: Subject) -> Conversation:
    """A conversation whose token is bound to nobody."""
    token = accepted(await s.client.generate())
    return await s.started(accepted(await s.client.using(token.token).start(), 201))


async def echo(talk: Conversation, activity: Activity) -> Activity:
    """What Get Activities has of an activity that was sent."""
    id_ = await talk.sent(activity)
    found = [each for each in await talk.log() if each["id"] == id_]
    same(len(found), 1, "echoes")
    return found[0]


@group.check(73)
async def id_form(s: Subject) -> None:
    """Valid message → 200 `{"id": "<conversationId>|<7+ digits>"}`."""
    talk = await s.start()
    answer = accepted(await talk.send())
    same(list(answer.json), ["id"], "properties")
    expect(re.fullmatch(re.escape(talk.id) + r"\|\d{7,}", answer.json["id"]), answer.json["id"])


@group.check(74)
async def first_id(s: Subject) -> None:
    """First visible activity of a conversation has suffix `|0000000`."""
    talk = await s.start()
    first = await talk.sent()
    visible = (await talk.log())[0]["id"]
    expect(visible.endswith("|0000000"), f"{visible}, sent as {first}")


@group.check(75)
async def replaced(s: Subject) -> None:
    """Client-supplied `id`, `timestamp`, `conversation`, `channelId`, `serviceUrl`, `recipient` → replaced or dropped
    in the echo as in 6.1."""
    talk = await s.start()
    given = {"id": "mine", "timestamp": "1999-01-01T00:00:00Z", "conversation": {"id": "mine"}, "channelId": "webchat"}
    found = await echo(talk, {**MESSAGE, **given, "serviceUrl": "http://mine", "recipient": {"id": "mine"}})
    same(found["conversation"], {"id": talk.id}, "conversation")
    same(found["channelId"], "directline", "channelId")
    expect(found["id"] != "mine" and not found["timestamp"].startswith("1999"), found)
    expect("mine" not in str(found), found)


@group.check(76)
async def kept(s: Subject) -> None:
    """Echo carries the id of the POST answer and unchanged `channelData`, `localTimestamp`, `localTimezone`, `locale`,
    `entities`, `value`, unknown fields."""
    talk = await s.start()
    found = await echo(talk, {**MESSAGE, **KEPT})
    for name, value in KEPT.items():
        same(found.get(name), value, name)


@group.check(77, Need.BOT)
async def what_the_bot_gets(s: Subject) -> None:
    """Bot receives the same `channelData` and the same `id`."""
    talk = await s.start()
    id_ = await talk.sent({**MESSAGE, **KEPT})
    (copy,) = talk.heard()
    same(copy["id"], id_, "id")
    for name, value in KEPT.items():
        same(copy.get(name), value, name)


@group.check(78)
async def no_addresses(s: Subject) -> None:
    """Echo has no `serviceUrl` and no `recipient`."""
    found = await echo(await s.start(), MESSAGE)
    expect(not {"serviceUrl", "recipient", "callerId"} & found.keys(), sorted(found))


@group.check(79, Need.BOT)
async def bound_user_wins(s: Subject) -> None:
    """Token bound to u1, body `from.id` u2 → bot and echo see u1; status 200."""
    talk = await bound(s)
    found = await echo(talk, {**MESSAGE, "from": {"id": "u2"}})
    same(found["from"]["id"], "u1", "echo")
    same(talk.heard()[0]["from"]["id"], "u1", "bot")


@group.check(80)
async def bound_user_fills_in(s: Subject) -> None:
    """Token bound to u1, no `from` → 200, `from.id` u1."""
    same((await echo(await bound(s), {"type": "message", "text": "x"}))["from"]["id"], "u1", "from.id")


@group.check(81)
async def nobody(s: Subject) -> None:
    """Unbound token or S, no `from` → 400 `MissingProperty`."""
    talk = await unbound(s)
    for client in (talk.client, s.client):
        refused(await client.send(talk.id, {"type": "message", "text": "x"}), 400, "MissingProperty")


@group.check(82)
async def from_is_text(s: Subject) -> None:
    """`from` is a string → 400 `BadArgument`."""
    refused(await (await unbound(s)).send({**MESSAGE, "from": "user"}), 400, "BadArgument")


@group.check(83, Need.BOT)
async def as_the_bot(s: Subject) -> None:
    """`from.id` equal to the bot id → 400 `BadArgument`."""
    talk = await unbound(s)
    bot_id = talk.heard("conversationUpdate")[0]["recipient"]["id"]
    refused(await talk.send({**MESSAGE, "from": {"id": bot_id}}), 400, "BadArgument")


@group.check(84)
async def role_of_a_bot(s: Subject) -> None:
    """`from.role: "bot"` from a client → not present as "bot" in the echo."""
    found = await echo(await s.start(), {**MESSAGE, "from": {"id": USER, "role": "bot"}})
    expect(found["from"].get("role") != "bot", found)


@group.check(85)
async def no_type(s: Subject) -> None:
    """No `type` → 400 `MissingProperty`."""
    refused(await (await s.start()).send({"from": {"id": USER}, "text": "x"}), 400, "MissingProperty")


@group.check(86)
async def array(s: Subject) -> None:
    """Array body → 400 `BadArgument`."""
    talk = await s.start()
    path = f"/conversations/{talk.id}/activities"
    refused(await talk.client.request("POST", path, json=[MESSAGE]), 400, "BadArgument")


@group.check(87, Need.BOT)
async def unknown_type(s: Subject) -> None:
    """Unknown `type` "x.custom" → 200, forwarded, on GA and stream."""
    talk = await s.start()
    async with talk.stream() as stream:
        same((await echo(talk, {**MESSAGE, "type": "x.custom"}))["type"], "x.custom", "Get Activities")
        same((await stream.next_activity())["type"], "x.custom", "the stream")
    same(len(talk.heard("x.custom")), 1, "at the bot")


@group.check(88, Need.BOT)
async def contact_relation_update(s: Subject) -> None:
    """`contactRelationUpdate` → 400 `BadArgument`, bot not called."""
    talk = await s.start()
    refused(await talk.send({**MESSAGE, "type": "contactRelationUpdate"}), 400, "BadArgument")
    await talk.sent("the bot has heard of everything before this")
    same(talk.heard("contactRelationUpdate"), [], "at the bot")


@group.check(89, Need.BOT)
async def conversation_update(s: Subject) -> None:
    """Client `conversationUpdate` → 200, bot receives it, never on GA or stream."""
    talk = await s.start()
    async with talk.stream() as stream:
        accepted(await talk.send({**MESSAGE, "type": "conversationUpdate", "topicName": "of the client"}))
        await talk.sent("behind it")
        await stream.until_text("behind it")
        same([each["type"] for each in stream.activities], ["message"], "the stream")
    same([each["type"] for each in await talk.log()], ["message"], "Get Activities")
    topics = [each.get("topicName") for each in talk.heard("conversationUpdate")]
    same(topics.count("of the client"), 1, "at the bot")


@group.check(90)
async def size_limit(s: Subject) -> None:
    """Body of limit + 1 bytes → 413 `MessageSizeTooBig`; of exactly the limit → 200."""
    talk = await s.start()
    room = ACTIVITY_BYTES - len(dumps({**MESSAGE, "text": ""}))
    refused(await talk.send({**MESSAGE, "text": "x" * (room + 1)}), 413, "MessageSizeTooBig")
    accepted(await talk.send({**MESSAGE, "text": "x" * room}))


@group.check(91, Need.BOT)
async def bot_rejects(s: Subject) -> None:
    """Bot answers 500 → 502 `BotRejectedActivity`; bot answers 401 → 502 `BotRejectedActivity`."""
    talk = await s.start()
    for status in (500, 401):
        s.bot.answer(status)
        refused(await talk.send(), 502, "BotRejectedActivity")


@group.check(92, Need.BOT, slow=True)
async def bot_is_down(s: Subject) -> None:
    """Bot refuses connections → 502 `BotError`."""
    async with s.quick() as quick:
        talk = await quick.start()
        await quick.bot.refuse()
        refused(await talk.send(), 502, "BotError")


@group.check(93, Need.BOT, slow=True)
async def bot_hangs(s: Subject) -> None:
    """Bot hangs → 502 `BotError` after the configured timeout (default 15 s, not above 18 s)."""
    async with s.quick() as quick:
        talk = await quick.start()
        await talk.sent("joined")
        quick.bot.hang()
        begun = time.monotonic()
        refused(await talk.send(), 502, "BotError")
        took = time.monotonic() - begun
        expect(took <= quick.pace.bot_s, f"took {took:.1f} s")


@group.check(94, Need.BOT, slow=True)
async def kept_after_a_failure(s: Subject) -> None:
    """After 92/93 the activity is on GA and was echoed on the stream, once.

    Here after 92."""
    async with s.quick() as quick:
        talk = await quick.start()
        async with talk.stream() as stream:
            await quick.bot.refuse()
            refused(await talk.send("failed"), 502, "BotError")
            await quick.bot.accept()
            await talk.sent("behind it")
            await stream.until_text("behind it")
            same(stream.texts, ["failed", "behind it"], "the stream")
        same(await talk.texts(), ["failed", "behind it"], "Get Activities")


@group.check(95, Need.BOT, slow=True)
async def late_reply(s: Subject) -> None:
    """Bot replies after its timeout → reply delivered on stream and GA."""
    async with s.quick() as quick:
        talk = await quick.start()
        async with talk.stream() as stream:
            await talk.sent("joined")
            quick.bot.hang()
            refused(await talk.send("question"), 502, "BotError")
            await talk.say("late", replyToId=talk.heard()[-1]["id"])
            await stream.until_text("late")
        same(await talk.texts(), ["joined", "question", "late"], "Get Activities")


@group.check(96, Need.BOT)
async def body_of_a_bot(s: Subject) -> None:
    """Bot answers 202 with a body → 200 `{"id"}`."""
    talk = await s.start()
    s.bot.answer(202, b"accepted", content_type="text/plain")
    same(list(accepted(await talk.send()).json), ["id"], "properties")


@group.check(97, Need.BOT)
async def client_hangs_up(s: Subject) -> None:
    """Client drops the connection while the bot works → activity still on GA."""
    talk = await s.start()
    await talk.sent("joined")
    s.bot.hang()
    call = asyncio.create_task(talk.send("dropped"))
    await until(lambda: len(talk.heard()) == 2, "the bot is at work")
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    s.bot.release()
    await until_texts(talk, "joined", "dropped")


@group.check(98)
async def marked_user(s: Subject) -> None:
    """Unbound token with `from.id: "dl_x"` → 400 `BadArgument`; S with the same → 200."""
    talk = await unbound(s)
    activity = {**MESSAGE, "from": {"id": "dl_x"}}
    refused(await talk.send(activity), 400, "BadArgument")
    accepted(await s.client.send(talk.id, activity))


@group.check(99, Need.BOT)
async def invoke(s: Subject) -> None:
    """`invoke`, bot 200 → 200; bot 412 → 502."""
    talk = await s.start()
    activity = {**MESSAGE, "type": "invoke", "name": "x/y", "value": {"a": 1}}
    accepted(await talk.send(activity))
    s.bot.answer(412)
    refused(await talk.send(activity), 502, "BotRejectedActivity")


@group.check(100, Need.BOT)
async def token_exchange(s: Subject) -> None:
    """`signin/tokenExchange` invoke → bot gets `value`; GA and stream copy have none."""
    talk = await s.start()
    async with talk.stream() as stream:
        value = {"id": "1", "token": "a secret of the user"}
        found = await echo(talk, {**MESSAGE, "type": "invoke", "name": "signin/tokenExchange", "value": value})
        shown = await stream.next_activity()
    same(talk.heard("invoke")[0].get("value"), value, "value at the bot")
    expect("value" not in found, "value on Get Activities")
    expect("value" not in shown, "value on the stream")
