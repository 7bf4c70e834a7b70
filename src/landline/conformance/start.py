"""Group D: start (specification 5.2, 6.4)."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

from landline.conformance.checks import Group, Need
from landline.conformance.directline import Activity, Answer, claims
from landline.conformance.expect import accepted, expect, refused, same
from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.subject import USER, Subject, until

group = Group("D", "Start")


def members(update: Activity) -> list[Any]:
    """The ids of who is added."""
    return [each["id"] for each in update.get("membersAdded", [])]


async def greet(bot: ScriptedBot, activity: Activity) -> None:
    """A bot that says something as soon as it hears of a conversation."""
    if activity["type"] == "conversationUpdate":
        await bot.send(activity["conversation"]["id"], {"type": "message", "text": "welcome"})


def is_start(answer: Answer) -> None:
    """Fail unless the answer has what a start answers."""
    missing = {"conversationId", "token", "expires_in", "streamUrl"} - answer.json.keys()
    expect(not missing, f"missing: {missing}")


@group.check(56)
async def with_a_secret(s: Subject) -> None:
    """Start with S, empty body, no Content-Type → 201 with `conversationId`, `token`, `expires_in`, `streamUrl`."""
    is_start(accepted(await s.client.request("POST", "/conversations"), 201))


@group.check(57)
async def twice_with_a_secret(s: Subject) -> None:
    """Start with S twice → two conversations, 201 both."""
    first, second = accepted(await s.client.start(), 201), accepted(await s.client.start(), 201)
    expect(first.conversation_id != second.conversation_id, first.conversation_id)


@group.check(58)
async def with_a_token(s: Subject) -> None:
    """Start with a fresh token → 201 and its `conv` id."""
    token = accepted(await s.client.generate())
    answer = accepted(await s.client.using(token.token).start(), 201)
    same(answer.conversation_id, token.conversation_id, "conversationId")


@group.check(59, Need.BOT)
async def again_with_a_token(s: Subject) -> None:
    """Start again with the same or the refreshed token → 200, same id, new `streamUrl`, bot not called (announcement
    done)."""
    talk = await s.start()
    await talk.sent("the bot has heard of everything before this")
    heard = len(s.bot.heard(talk.id))
    for client in (talk.client, s.client.using(accepted(await talk.client.refresh()).token)):
        again = accepted(await client.start())
        same(again.conversation_id, talk.id, "conversationId")
        expect(again.stream_url != talk.opened.stream_url, "the same streamUrl")
    await talk.sent("nor did it hear anything else")
    same(len(s.bot.heard(talk.id)), heard + 1, "requests to the bot")


@group.check(60, Need.BOT)
async def concurrent(s: Subject) -> None:
    """20 concurrent starts with one fresh token → exactly one 201, nineteen 200, bot gets one conversationUpdate."""
    token = accepted(await s.client.generate())
    client = s.client.using(token.token)
    answers = await asyncio.gather(*(client.start() for _ in range(20)))
    same(sorted(answer.status for answer in answers), [200] * 19 + [201], "statuses")
    talk = await s.started(answers[0])
    await talk.sent({"type": "message", "from": {"id": USER}})
    same([members(each) for each in talk.heard("conversationUpdate")].count([USER]), 1, "joins of the user")
    same(len(talk.heard("conversationUpdate")), 2, "conversationUpdates of bot and user")


@group.check(61)
async def empty_user(s: Subject) -> None:
    """Body `{"user":{}}` as DirectLineJS sends → 201."""
    accepted(await s.client.start(user={}), 201)


@group.check(62, Need.BOT)
async def locale(s: Subject) -> None:
    """Body `{"locale":"de-DE"}` → conversationUpdate to the bot has `locale` "de-DE"; `{"locale":{"x":1}}` → 201, no
    locale."""
    for given, wanted in (("de-DE", "de-DE"), ({"x": 1}, None)):
        talk = await s.start(locale=given)
        same(talk.heard("conversationUpdate")[0].get("locale"), wanted, "locale")


@group.check(63)
async def stream_scheme(s: Subject) -> None:
    """`streamUrl` scheme is `wss` (or `ws` for an http base)."""
    wanted = {"http": "ws", "https": "wss"}[urlsplit(s.domain).scheme]
    same(urlsplit(accepted(await s.client.start(), 201).stream_url).scheme, wanted, "scheme")


@group.check(64, Need.BOT)
async def without_the_bot(s: Subject) -> None:
    """Start while the bot is down or hangs → 201 within 2 s."""
    s.bot.hang()
    for broken in ("hangs", "is down"):
        begun = time.monotonic()
        accepted(await s.client.start(), 201)
        expect(time.monotonic() - begun < 2, f"took {time.monotonic() - begun:.1f} s while the bot {broken}")
        await s.bot.refuse()


@group.check(65, Need.BOT)
async def greeting(s: Subject) -> None:
    """Greeting sent by the bot before the stream is opened → first activity on the stream."""
    s.bot.on_activity = greet
    talk = await s.start()
    await until(lambda: s.bot.heard(talk.id), "the bot has heard of it")
    async with talk.stream() as stream:
        same((await stream.next_activity()).get("text"), "welcome", "first activity")


@group.check(66, Need.BOT)
async def greeting_after_a_handover(s: Subject) -> None:
    """Backend starts with a token, bot greets, browser starts again (200) and opens its stream → greeting received."""
    s.bot.on_activity = greet
    token = accepted(await s.client.generate(user={"id": "dl_a"}))
    browser = s.client.using(token.token)
    talk = await s.started(accepted(await browser.start(), 201))
    async with talk.stream() as stream:
        await stream.until_text("welcome")
    async with talk.stream(accepted(await browser.start()).stream_url) as stream:
        await stream.until_text("welcome")


@group.check(67, Need.CONTROL)
async def purged(s: Subject) -> None:
    """Start with a token whose conversation was purged → 404 `BadArgument`; refresh of it → 404 `BadArgument`."""
    async with s.server(conversation_idle_ttl_s=0.5) as brief:
        talk = await brief.start()
        for wait in (1.0, 2.0, 4.0):  # longer each time, since a look is a use
            await asyncio.sleep(wait)
            answer = await talk.client.start()
            if answer.status == 404:
                break
        refused(answer, 404, "BadArgument")
        refused(await talk.client.refresh(), 404, "BadArgument")


@group.check(68)
async def secret_and_user(s: Subject) -> None:
    """Secret + body `user.id` → returned token has that `user` claim."""
    same(claims(accepted(await s.client.start(user={"id": "u1"}), 201).token).get("user"), "u1", "claim user")


@group.check(69)
async def unbound_token_and_marked_user(s: Subject) -> None:
    """Token without user + body `user.id: "dl_x"` → 400 `BadArgument`."""
    token = accepted(await s.client.generate()).token
    refused(await s.client.using(token).start(user={"id": "dl_x"}), 400, "BadArgument")


@group.check(70, Need.BOT)
async def join_of_bot_and_user(s: Subject) -> None:
    """Token with user: conversationUpdate has `membersAdded` of exactly bot and user in one activity."""
    token = accepted(await s.client.generate(user={"id": "dl_a"}))
    talk = await s.started(accepted(await s.client.using(token.token).start(), 201))
    (update,) = talk.heard("conversationUpdate")
    same(len(members(update)), 2, "members")
    same(sorted(members(update)), sorted([update["recipient"]["id"], "dl_a"]), "members")


@group.check(71, Need.BOT)
async def join_of_a_later_user(s: Subject) -> None:
    """No user known: conversationUpdate with only the bot; before the first user activity a second one with the user,
    and the bot receives it before that activity."""
    talk = await s.start()
    (first,) = talk.heard("conversationUpdate")
    same(members(first), [first["recipient"]["id"]], "members of the first")
    await talk.sent("hello")
    heard = s.bot.heard(talk.id)
    same([each["type"] for each in heard], ["conversationUpdate"] * 2 + ["message"], "what the bot heard")
    same(members(heard[1]), [USER], "members of the second")


@group.check(72, Need.BOT)
async def joins_are_not_shown(s: Subject) -> None:
    """conversationUpdate never appears on GA or the stream."""
    talk = await s.start(user={"id": USER})
    async with talk.stream() as stream:
        await talk.sent("hello")
        await stream.until_text("hello")
        same([each["type"] for each in stream.activities], ["message"], "the stream")
    same([each["type"] for each in await talk.log()], ["message"], "Get Activities")
