"""Group J: end to end, idempotency, limits (specification 8, 10, 3.1)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from landline.conformance import wire
from landline.conformance.checks import Group, Need
from landline.conformance.credentials import a_name
from landline.conformance.directline import Activity, Answer, ClientStream
from landline.conformance.expect import accepted, expect, refused, same
from landline.conformance.subject import USER, Conversation, Subject, until
from landline.conformance.transport import MESSAGE, ORIGIN
from landline.conformance.uploads import fetch

group = Group("J", "End to end, idempotency, limits")

FOREIGN = "https://www.example.net"
END = "the end"
MESSAGES = 300
CUTS = 15
"""What a check that anybody can run has of the 1000 messages and 50 cuts of the statement."""


async def follow(talk: Conversation, dice: random.Random) -> list[str]:
    """A client that is cut at random points, and comes back with its last watermark, until it has seen the end. The ids
    of what it got, in the order in which it got them."""
    seen: list[str] = []
    watermark, cuts = "", CUTS
    while True:
        enough = dice.randrange(1, 2 * MESSAGES // CUTS) if cuts else MESSAGES + 1
        async with talk.client.stream((await talk.reconnect(watermark)).stream_url) as stream:
            await stream.until(_has(enough), "goes on")
            if stream.open:
                stream.cut()
            await stream.until_closed()
        watermark, cuts = stream.watermark or watermark, max(0, cuts - 1)
        seen += [each["id"] for each in stream.activities]
        if END in stream.texts:
            return seen


def _has(enough: int) -> Callable[[ClientStream], bool]:
    return lambda stream: len(stream.activities) >= enough or END in stream.texts


async def cut_again_and_again(s: Subject, clients: int) -> None:
    """The messages of a bot, and how many clients, each cut at its own points."""
    seed = random.randrange(2**32)  # noqa: S311  # where to cut
    talk = await s.start()

    async def speak() -> None:
        for n in range(MESSAGES):
            await talk.say(f"n {n}")
        await talk.say(END)

    dice = [random.Random(f"{seed} {n}") for n in range(clients)]  # noqa: S311
    _, *seen = await asyncio.gather(speak(), *(follow(talk, each) for each in dice))
    log = [each["id"] for each in await talk.log()]
    for ids in seen:
        same([each for each in log if each not in set(ids or ())], [], f"missed, with seed {seed}")
        same(list(dict.fromkeys(ids or ())), log, f"order, with seed {seed}")


@group.check(164, Need.BOT)
async def cuts(s: Subject) -> None:
    """Client cut at random points 50 times while 1000 bot messages flow, always reconnecting with its last WM → set of
    ids received equals ids accepted.

    Here 15 cuts and 300 messages."""
    await cut_again_and_again(s, 1)


@group.check(165, Need.BOT)
async def cuts_of_two(s: Subject) -> None:
    """As 164 with a second client on the same conversation → both end with the full set."""
    await cut_again_and_again(s, 2)


async def keyed(talk: Conversation, key: str, activity: Activity | None = None) -> Answer:
    """A send under an Idempotency-Key."""
    return await talk.send(activity or MESSAGE, headers={"Idempotency-Key": key})


@group.check(166, Need.BOT)
async def repeated(s: Subject) -> None:
    """Same `Idempotency-Key` and body twice → one activity, one bot call, same id, 200 both."""
    talk = await s.start()
    first, second = accepted(await keyed(talk, "k")), accepted(await keyed(talk, "k"))
    same(second.json, first.json, "the answer")
    same(len(await talk.log()), 1, "activities")
    same(len(talk.heard()), 1, "calls of the bot")


@group.check(167)
async def other_body(s: Subject) -> None:
    """Same key, different body → 409 `Conflict`."""
    talk = await s.start()
    accepted(await keyed(talk, "k"))
    refused(await keyed(talk, "k", {**MESSAGE, "text": "other"}), 409, "Conflict")


@group.check(168, Need.CONTROL, Need.BOT)
async def repeated_after_a_failure(s: Subject) -> None:
    """Same key after a 502, and after a kill -9 between the append and the bot's answer → same id, bot called again,
    nothing appended, 200 if the bot now accepts."""
    async with s.quick() as quick:
        talk = await quick.start()
        quick.bot.answer(500)
        refused(await keyed(talk, "k"), 502, "BotRejectedActivity")
        quick.bot.answer()
        first = accepted(await keyed(talk, "k")).json["id"]
        same([each["id"] for each in talk.heard()], [first] * 2, "what the bot got")
        quick.bot.hang()
        call = asyncio.create_task(keyed(talk, "l"))
        await until(lambda: len(talk.heard()) == 3, "the bot is at work")
        if quick.running is not None:
            await quick.running.restart(kill=True)
        await asyncio.wait([call])
        quick.bot.release()
        second = accepted(await keyed(talk, "l")).json["id"]
        same([each["id"] for each in await talk.log()], [first, second], "the log")
        same([each["id"] for each in talk.heard()], [first] * 2 + [second] * 2, "what the bot got")


@group.check(169, Need.BOT)
async def repeated_at_once(s: Subject) -> None:
    """Same key sent concurrently ten times → one activity, all answers equal."""
    talk = await s.start()
    s.bot.answer(delay=0.2)
    answers = await asyncio.gather(*(keyed(talk, "k") for _ in range(10)))
    same({(answer.status, answer.body) for answer in answers}, {(200, answers[0].body)}, "the answers")
    same(len(await talk.log()), 1, "activities")


@group.check(170)
async def equal_without_a_key(s: Subject) -> None:
    """Two sends with equal bodies, `clientActivityID` and `localTimestamp` and no `Idempotency-Key` → two
    activities."""
    talk = await s.start()
    activity = {**MESSAGE, "localTimestamp": "2026-01-05T11:00:00Z", "channelData": {"clientActivityID": "c1"}}
    first, second = await talk.sent(activity), await talk.sent(activity)
    expect(first != second, first)
    same(len(await talk.log()), 2, "activities")


@group.check(171, Need.BOT)
async def end_of_conversation(s: Subject) -> None:
    """`endOfConversation` from the client → 200, on GA and stream; later messages from client and bot → delivered; GA
    and RC 200."""
    talk = await s.start()
    async with talk.stream() as stream:
        await talk.sent({"type": "endOfConversation", "from": {"id": USER}})
        await talk.sent("one more thing")
        await talk.say("goodbye")
        await stream.until_text("goodbye")
        same([each["type"] for each in stream.activities], ["endOfConversation", "message", "message"], "the stream")
    same(await talk.texts(), [None, "one more thing", "goodbye"], "Get Activities")
    await talk.reconnect()


@group.check(173, Need.BOT)
async def reply_to_a_join(s: Subject) -> None:
    """Bot reply to a conversationUpdate → client copy has no `replyToId`."""
    talk = await s.start()
    (join,) = talk.heard("conversationUpdate")
    await s.bot.reply(talk.id, join["id"], {"type": "message", "text": "welcome"})
    await talk.sent("question")
    await s.bot.reply(talk.id, talk.heard()[0]["id"], {"type": "message", "text": "answer"})
    welcome, question, answer = await talk.log()
    expect("replyToId" not in welcome, welcome)
    same(answer.get("replyToId"), question["id"], "replyToId of a reply to a message")


@group.check(174, Need.BOT)
async def delivery_mode(s: Subject) -> None:
    """`deliveryMode: "stream"` from the client, bot with `bot_delivery` = `normal` → bot copy has no `deliveryMode`,
    echo has it."""
    talk = await s.start()
    await talk.sent({**MESSAGE, "deliveryMode": "stream"})
    expect("deliveryMode" not in talk.heard()[0], talk.heard()[0])
    same((await talk.log())[0].get("deliveryMode"), "stream", "deliveryMode of the echo")


@group.check(175, Need.CONTROL)
async def enhanced(s: Subject) -> None:
    """Enhanced authentication: generate without user → 400 `MissingProperty`; user `x` → 400 `BadArgument`; unbound
    token start → 400 `MissingProperty`."""
    async with s.operator() as operator:
        site = s.client.using(await operator.add_site(a_name(), enhanced_authentication=True))
    refused(await site.generate(), 400, "MissingProperty")
    refused(await site.generate(user={"id": "x"}), 400, "BadArgument")
    refused(await site.start(), 400, "MissingProperty")
    bound = accepted(await site.generate(user={"id": "dl_x"}))
    accepted(await site.using(bound.token).start(), 201)


@group.check(176, Need.CONTROL)
async def enhanced_with_origins(s: Subject) -> None:
    """Enhanced authentication with origins: start with a foreign `Origin` → 403 `BadArgument`; without `Origin` → 201;
    site list set → request list ignored."""
    async with s.operator() as operator:
        listed = await operator.add_site(a_name(), enhanced_authentication=True, trusted_origins=[ORIGIN])
        unlisted = await operator.add_site(a_name(), enhanced_authentication=True)
    user = {"id": "dl_x"}
    for secret, origins in ((unlisted, [ORIGIN]), (listed, [FOREIGN])):
        token = accepted(await s.client.using(secret).generate(user=user, trustedOrigins=origins)).token
        page = s.client.using(token)
        refused(await page.at(FOREIGN).start(), 403, "BadArgument")
        accepted(await page.start(), 201)
        accepted(await page.at(ORIGIN).start())


@group.check(177)
async def session(s: Subject) -> None:
    """`getsessionid` with a listed Origin → 200 `{"sessionId": non-empty}`, cookie HttpOnly+Secure+SameSite=None, same
    id on the second call with the cookie; unlisted or empty list → 403 `ServiceError`."""
    path = "/session/getsessionid"
    page = s.client.using(accepted(await s.client.generate(trustedOrigins=[ORIGIN])).token)
    first = accepted(await page.at(ORIGIN).request("GET", path))
    expect(first.json.get("sessionId"), first)
    cookie = first.headers.get("Set-Cookie", "")
    attributes = {each.strip().lower() for each in cookie.split(";")}
    expect({"httponly", "secure", "samesite=none"} <= attributes, f"Set-Cookie: {cookie}")
    second = await page.at(ORIGIN).request("GET", path, headers={"Cookie": cookie.partition(";")[0]})
    same(accepted(second).json, first.json, "the second answer")
    refused(await page.at(FOREIGN).request("GET", path), 403, "ServiceError")
    nobody = s.client.using(accepted(await s.client.generate()).token)
    refused(await nobody.at(ORIGIN).request("GET", path), 403, "ServiceError")


@group.check(178)
async def too_often(s: Subject) -> None:
    """429 → `Retry-After` integer ≥ 1 and code `RateLimited`; never on the first 20 polls of a conversation."""
    talk = await s.start()
    polls = await asyncio.gather(*(talk.client.activities(talk.id) for _ in range(20)))
    same({answer.status for answer in polls}, {200}, "the first 20 polls")
    answers = await asyncio.gather(*(talk.send(f"n {n}") for n in range(80)))
    too_many = [answer for answer in answers if answer.status != 200]
    expect(too_many, "80 sends at once were all taken")
    for answer in too_many:
        refused(answer, 429, "RateLimited")
        seconds = answer.headers.get("Retry-After", "")
        expect(seconds.isdigit() and int(seconds) >= 1, f"Retry-After: {seconds!r}")


@group.check(183, Need.BOT)
async def update(s: Subject) -> None:
    """Bot PUT on one of its activities → a stream gets an entry with the same id, the original timestamp and the new
    content, at a later watermark; unmodified Web Chat shows only the new content.

    Without Web Chat."""
    talk = await s.start()
    async with talk.stream() as stream:
        id_ = await talk.say("old")
        await talk.say("between")
        same((await talk.change("PUT", id_, {"type": "message", "text": "new"})).status, 200, "status of the PUT")
        await stream.until_text("new")
        old, _, new = stream.activities
        same((new["id"], new["timestamp"]), (old["id"], old["timestamp"]), "id and timestamp")
        expect(stream.sets[-1]["watermark"] not in [each["watermark"] for each in stream.sets[:-1]], stream.sets[-1])


@group.check(184, Need.BOT)
async def delete(s: Subject) -> None:
    """Bot DELETE → the stream gets a full `messageDelete` activity with that id; the content is no longer in Get
    Activities nor in any later replay; unmodified Web Chat no longer shows it.

    Without Web Chat."""
    talk = await s.start()
    async with talk.stream() as stream:
        id_ = await talk.say("to be deleted")
        same((await talk.change("DELETE", id_)).status, 200, "status of the DELETE")
        await stream.until(lambda stream: len(stream.activities) == 2, "has two activities")
        gone = stream.activities[1]
        same((gone["type"], gone["id"]), ("messageDelete", id_), "type and id")
        expect({"from", "conversation", "channelId", "timestamp"} <= gone.keys(), gone)
    expect("to be deleted" not in str(await talk.log()), "the content is on Get Activities")
    await talk.say("behind it")
    expect("to be deleted" not in await talk.stream_of("", "behind it"), "the content is replayed")


@group.check(185)
async def lone_surrogate(s: Subject) -> None:
    """Message whose text holds a lone surrogate escape → 200; echo parses as JSON."""
    talk = await s.start()
    await talk.sent({**MESSAGE, "text": "half of \ud83d"})
    same(await talk.texts(), ["half of \ud83d"], "the echo")


@group.check(186, Need.CONTROL, Need.BOT)
async def ids_after_a_kill(s: Subject) -> None:
    """kill -9 after typing activities were shown, restart, new message → its id was never seen before on that
    conversation."""
    async with s.quick() as quick:
        talk = await quick.start()
        async with talk.stream() as stream:
            for _ in range(3):
                await talk.say({"type": "typing"})
            await stream.until(lambda stream: len(stream.activities) == 3, "has seen them")
            if quick.running is not None:
                await quick.running.restart(kill=True)
        id_ = str(accepted(await quick.client.send(talk.id, "hello")).json["id"])
        expect(id_ not in [each["id"] for each in stream.activities], id_)


@group.check(188, Need.CONTROL, Need.BOT)
async def join_after_a_kill(s: Subject) -> None:
    """kill -9 between the 201 of a start and the conversationUpdate, restart, repeated start or next send → the bot
    gets the join; the greeting arrives."""

    async def greet(bot: Any, activity: Activity) -> None:
        if activity["type"] == "conversationUpdate":
            await bot.send(activity["conversation"]["id"], {"type": "message", "text": "welcome"})

    async with s.quick() as quick:
        await quick.bot.refuse()
        opened = accepted(await quick.client.start(user={"id": USER}), 201)
        if quick.running is not None:
            await quick.running.restart(kill=True)
        quick.bot.on_activity = greet
        await quick.bot.accept()
        talk = await quick.started(accepted(await quick.client.using(opened.token).start()))
        async with talk.stream() as stream:
            await stream.until_text("welcome")


@group.check(191, Need.BOT)
async def link_of_a_bot(s: Subject) -> None:
    """Bot attachment link built from an internal service URL → the client's copy starts with the public base and can be
    fetched."""
    talk = await s.start()
    base = s.bot.service_url(talk.id)
    file = {"type": "text/plain", "name": "a.txt", "originalBase64": "Ynl0ZXM="}
    attached = await s.bot.request("POST", f"{base}/v3/conversations/{talk.id}/attachments", json=file)
    expect(attached.status in (200, 201), f"status of the bot's upload: {attached.status}")
    link = f"{base}/v3/attachments/{attached.json['id']}/views/original"
    await talk.say("look", attachments=[{"contentType": "text/plain", "contentUrl": link}])
    shown = (await talk.log())[0]["attachments"][0]["contentUrl"]
    public = s.domain.removesuffix("/v3/directline")
    expect(shown.startswith(f"{public}/v3/attachments/"), shown)
    same((await fetch(shown)).body, b"bytes", "bytes")


@group.check(192, Need.BOT)
async def no_cors_elsewhere(s: Subject) -> None:
    """No CORS header on connector, token endpoint, admin, console, metrics; `Referrer-Policy: no-referrer` on Direct
    Line answers and attachments.

    Here the connector; where the others are, each server decides."""
    talk = await s.start()
    url = f"{s.bot.service_url(talk.id)}/v3/conversations/{talk.id}/activities"
    answer = await s.bot.request("POST", url, json={"type": "message"}, headers={"Origin": ORIGIN})
    cors = [name for name in answer.headers if name.lower().startswith("access-control-")]
    same(cors, [], "CORS headers of the connector")
    same((await talk.read()).headers.get("Referrer-Policy"), "no-referrer", "Referrer-Policy")
    path = f"/conversations/{talk.id}/upload?userId={USER}"
    accepted(await talk.client.request("POST", path, data=b"bytes", headers={"Content-Type": "image/png"}))
    link = (await talk.log())[-1]["attachments"][0]["contentUrl"]
    same((await fetch(link)).headers.get("Referrer-Policy"), "no-referrer", "Referrer-Policy of an attachment")


@group.check(194, Need.BOT, slow=True)
async def deadline(s: Subject) -> None:
    """Deadline: store and bot together slower than `bot_timeout_s` → the client has its 502 or 503 before 18 s.

    Here the bot alone."""
    async with s.quick() as quick:
        talk = await quick.start()
        await talk.sent("joined")
        quick.bot.hang()
        begun = time.monotonic()
        accepted(await talk.send(), 502, 503)
        expect(time.monotonic() - begun < quick.pace.bot_s, f"took {time.monotonic() - begun:.1f} s")


@group.check(195)
async def storm(s: Subject) -> None:
    """300 starts in one second against the default limit → all 201, none refused."""
    answers = await asyncio.gather(*(s.client.start() for _ in range(300)))
    same({answer.status for answer in answers}, {201}, "statuses")


@group.check(196, slow=True)
async def slow_requests(s: Subject) -> None:
    """A client that sends one header byte per second, or stops in mid-body, is gone after the stated time, and others
    notice nothing; 200 such clients cost no more than their sockets.

    Here 20 of each, and one other who notices nothing."""
    async with s.quick() as quick, AsyncExitStack() as left:
        length = "Content-Length: 100"
        credential = f"Authorization: Bearer {quick.secret}"
        half = wire.head(quick.domain, "POST", "/conversations", credential, length) + b"{"
        begun = wire.head(quick.domain, "GET", "/x")[:-4]
        stuck = [await left.enter_async_context(wire.connected(quick.domain)) for _ in range(40)]
        for n, (_, writer) in enumerate(stuck):
            writer.write(half if n % 2 else begun)
        await (await quick.start()).sent("others notice nothing")
        ends = (("headers", quick.pace.headers_s), ("in mid-body", quick.pace.body_s))
        readers = [(reader, *ends[n % 2]) for n, (reader, _) in enumerate(stuck)]
        await asyncio.gather(*(wire.hung_up(reader, within + 2, what) for reader, what, within in readers))


@group.check(197)
async def odd_headers(s: Subject) -> None:
    """Two differing `Authorization` headers in either order → 400; two equal ones → as one [r2]; 101 header fields →
    431; `Content-Length` beside `Transfer-Encoding` → 400 and the connection closes."""
    good, other = f"Authorization: Bearer {s.secret}", "Authorization: Bearer nonsense"
    for pair in ((good, other), (other, good)):
        same(await wire.status(s.domain, "POST", "/conversations", *pair), 400, "two Authorization headers")
    same(await wire.status(s.domain, "POST", "/conversations", good, good, "Content-Length: 0"), 201, "two equal ones")
    many = [f"X-{n}: x" for n in range(100)]
    same(await wire.status(s.domain, "POST", "/conversations", *many), 431, "101 header fields")
    both = (good, "Content-Length: 2", "Transfer-Encoding: chunked")
    body = b"2\r\n{}\r\n0\r\n\r\n"
    same(await wire.status(s.domain, "POST", "/conversations", *both, body=body, closes=True), 400, "two lengths")
