"""Group K, what concerns activities, the log and streams: revision 2 of the specification (section 14 K)."""

from __future__ import annotations

import json
from typing import Any

from landline.conformance.checks import Group, Need
from landline.conformance.directline import ClientStream, claims, edited
from landline.conformance.expect import accepted, refused, same
from landline.conformance.reading import TYPING, page_texts, three
from landline.conformance.send import echo, unbound
from landline.conformance.streams import chunk
from landline.conformance.subject import USER, Subject
from landline.conformance.transport import MESSAGE

group = Group("K", "Revision 2")

BLANKING: tuple[dict[str, Any], ...] = ({"text": {}}, {"suggestedActions": 7}, {"attachments": [None]})
CARRIED: tuple[dict[str, Any], ...] = (
    {"text": 0},
    {"text": None},
    {"text": "x", "locale": 7},
    {"text": "x", "channelData": "odd"},
    {"text": "x", "entities": [None, 7, {"type": {}}]},
)


@group.check(203)
async def numeric_ids(s: Subject) -> None:
    """`from: {"id": 1}` and `user: {"id": 1}` → as `"1"`; `1.5`, `true`, `{}` → 400 `BadArgument`."""
    talk = await unbound(s)
    same((await echo(talk, {**MESSAGE, "from": {"id": 1, "name": "John"}}))["from"]["id"], "1", "from.id")
    opened = accepted(await s.client.start(user={"id": 1}), 201)
    same(claims(opened.token).get("user"), "1", "user of the token")
    odd_ids: tuple[object, ...] = (1.5, True, {})
    for odd in odd_ids:
        refused(await talk.send({**MESSAGE, "from": {"id": odd}}), 400, "BadArgument")
        refused(await s.client.generate(user={"id": odd}), 400, "BadArgument")


@group.check(205)
async def bare_numbers(s: Subject) -> None:
    """`watermark=n` for a bare number within the log on GET activities, reconnect and stream URL → behind entry n;
    beyond the last → from the beginning, `from-start`; `0` → beginning; 12 digits → unrecognised."""
    talk = await three(s)
    await talk.sent("four")
    texts = await talk.texts()
    numbers = [each["id"].rpartition("|")[2] for each in await talk.log()]
    for place, number in enumerate(numbers[1:-1], 2):
        behind = texts[place:]
        for spelled in (number, str(int(number))):
            same(await page_texts(talk, spelled), behind, f"behind {spelled}")
            same((await talk.read(spelled)).replay, "complete", f"X-DirectLine-Replay of {spelled}")
            same(await talk.stream_of(spelled, "four"), behind, f"reconnect behind {spelled}")
            async with talk.stream(edited(talk.opened.stream_url, watermark=spelled)) as stream:
                await stream.until_text("four")
                same(stream.texts, behind, f"stream URL behind {spelled}")
    same(await page_texts(talk, numbers[-1]), [], "behind the last")
    for beyond in (str(int(numbers[-1]) + 1), "9999999999", "000000000002"):
        answer = await talk.read(beyond)
        same([each["text"] for each in answer.activities], texts, f"behind {beyond}")
        same(answer.replay, "from-start", f"X-DirectLine-Replay of {beyond}")
    same(await page_texts(talk, "0"), texts, "behind 0")


@group.check(206, Need.BOT)
async def careless_client(s: Subject) -> None:
    """A raw WebSocket client that takes `activities[0]` of each non-empty frame without looking lives through open,
    replay, typing, livestream, cut and reconnect."""
    talk = await s.start()
    async with talk.stream() as stream:
        await talk.say("one")
        await talk.sent(TYPING)
        first = await talk.say({**chunk("streaming", None, 1), "text": "A"})
        await talk.say({**chunk("final", first, 2), "type": "message", "text": "A fox"})
        await stream.until_text("A fox")
        same(careless(stream), ["bot", USER, "bot", "bot"], "who spoke")
        stream.cut()
    async with talk.stream((await talk.reconnect("")).stream_url) as again:
        await talk.say("two")
        await again.until_text("two")
        same(careless(again), ["bot"] * 3, "who spoke, after the cut")
    async with talk.stream((await talk.reconnect(again.watermark)).stream_url) as idle:
        await talk.say("three")
        await idle.until_text("three")
        same(careless(idle), ["bot"], "who spoke, behind the last")


@group.check(209, Need.BOT)
async def odd_values(s: Subject) -> None:
    """`{"text":{}}`, `{"suggestedActions":7}`, `{"attachments":[null]}` from a client and from a bot → 400
    `BadArgument`, nothing stored; `text: 0`, `text: null`, odd `locale`, `channelData`, `entities` entries →
    carried."""
    talk = await s.start()
    for odd in BLANKING:
        refused(await talk.send({**MESSAGE, **odd}), 400, "BadArgument")
        answer = await s.bot.send(talk.id, {"type": "message", **odd})
        same((answer.status, answer.json["error"]["code"]), (400, "BadArgument"), "answer to the bot")
    same(await talk.log(), [], "the log")
    for carried in CARRIED:
        found = await echo(talk, {**MESSAGE, **carried})
        same({name: found.get(name) for name in carried}, carried, "the echo")
        await talk.say({"type": "message", **carried})
        last = (await talk.log())[-1]
        same({name: last.get(name) for name in carried}, carried, "what the bot said")


@group.check(214, Need.BOT)
async def installation(s: Subject) -> None:
    """A client's `installationUpdate` is not forwarded to the bot: 400 `BadArgument` (only a channel says it)."""
    talk = await s.start()
    refused(await talk.send({"type": "installationUpdate", "action": "add", "from": {"id": USER}}), 400, "BadArgument")
    await talk.sent("after")
    await s.bot.wait_for(lambda each: each.conversation_id == talk.id and each.text == "after")
    same(talk.heard("installationUpdate"), [], "what the bot got")


def careless(stream: ClientStream) -> list[str]:
    """Who spoke, as a client finds it that looks at nothing but the first activity of each frame."""
    first = [json.loads(frame)["activities"][0] for frame in stream.frames if frame]
    return ["bot" if each["from"].get("role") == "bot" else each["from"]["id"] for each in first]
