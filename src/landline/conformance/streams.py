"""Group I: stream (specification 7, 8.4)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import AsyncExitStack
from typing import Any

from landline.conformance.checks import Group, Need
from landline.conformance.credentials import expired
from landline.conformance.directline import Activity, ClientStream
from landline.conformance.expect import accepted, expect, refused, same
from landline.conformance.reading import TYPING, three
from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.subject import USER, Conversation, Subject, until
from landline.conformance.transport import MESSAGE

group = Group("I", "Stream")

STREAM_BYTES = 64 * 1024
"""The largest message of a client on a stream (7.4)."""


def well_formed(stream: ClientStream) -> None:
    """Fail unless the frames of a stream are as 7.3 says."""
    expect(all(isinstance(frame, str) for frame in stream.frames), "a binary frame")
    sets: list[dict[str, Any]] = [json.loads(frame) for frame in stream.frames if frame]
    for each in sets:
        expect(isinstance(each.get("watermark"), str) and each["watermark"], each)
        same(len(each["activities"]), 1, "activities of a frame")


async def two_replays(talk: Conversation, last: str) -> list[list[object]]:
    """The types of what a stream from the beginning brings, and of Get Activities."""
    async with talk.stream((await talk.reconnect("")).stream_url) as stream:
        await stream.until_text(last)
        return [[each["type"] for each in stream.activities], [each["type"] for each in await talk.log()]]


@group.check(144, Need.BOT)
async def frames(s: Subject) -> None:
    """No frame of any stream is an ActivitySet without activities [r2]; every non-empty frame is text, JSON, with
    exactly one activity and a non-empty string `watermark`; 500 activities replayed to an unmodified DirectLineJS come
    out in order.

    Without DirectLineJS."""
    talk = await s.start()
    said = [await talk.say(f"n {n}") for n in range(500)]
    async with talk.stream() as stream:
        await stream.until(lambda stream: len(stream.activities) >= 500, "has 500 activities")
        await talk.say("live")
        await stream.until_text("live")
        well_formed(stream)
        same([each["id"] for each in stream.activities[:-1]], said, "ids")
    async with talk.stream((await talk.reconnect(stream.watermark)).stream_url) as again:
        await talk.say("later")
        await again.until_text("later")
        well_formed(again)
        same(again.texts, ["later"], "behind the last watermark")


@group.check(145, slow=True)
async def keep_alive(s: Subject) -> None:
    """Idle stream → zero-length text frame at least every 30 s."""
    async with s.quick() as quick:
        talk, in_time_s = await quick.start(), quick.pace.keepalive_s * 1.05  # it takes some time to arrive
        async with talk.stream() as stream:
            await stream.until(lambda stream: stream.keep_alives >= 1, "has one", in_time_s)
            await stream.until(lambda stream: stream.keep_alives >= 2, "has two", in_time_s)


@group.check(146)
async def empty_frames(s: Subject) -> None:
    """Client sends empty frames every second for a minute → stream stays open, no reply.

    Here sixty of them, faster."""
    talk = await s.start()
    async with talk.stream() as stream:
        for _ in range(60):
            await stream.say("")
        await talk.sent("still open")
        await stream.until_text("still open")
        same(len([frame for frame in stream.frames if frame]), 1, "frames")


@group.check(147)
async def other_frames(s: Subject) -> None:
    """Client sends text "x" or binary on `/stream` → ignored, stream stays open; 65 KiB + 1 → close 1009."""
    talk = await s.start()
    async with talk.stream() as stream:
        for said in ("x", b"x", '{"type":"message"}'):
            await stream.say(said)
        await talk.sent("still open")
        await stream.until_text("still open")
        same(stream.texts, ["still open"], "the stream")
        await stream.say("x" * (STREAM_BYTES + 1025))
        same((await stream.until_closed())[0], 1009, "close code")


@group.check(148, Need.BOT)
async def echo_first(s: Subject) -> None:
    """Client's own message → echoed on its own stream before any bot reply to it."""

    async def reply(bot: ScriptedBot, activity: Activity) -> None:
        if activity["type"] == "message":
            text = f"re {activity['text']}"
            await bot.reply(activity["conversation"]["id"], activity["id"], {"type": "message", "text": text})

    talk = await s.start()
    s.bot.on_activity = reply
    async with talk.stream() as stream:
        await asyncio.gather(*(talk.sent(f"n {n}") for n in range(10)))
        await stream.until(lambda stream: len(stream.activities) == 20, "has 10 echoes and 10 replies")
        for n in range(10):
            expect(stream.texts.index(f"n {n}") < stream.texts.index(f"re n {n}"), stream.texts)


@group.check(149, Need.BOT)
async def bot_order(s: Subject) -> None:
    """Bot sends 5 messages in order → stream order equals acceptance order."""
    talk = await s.start()
    async with talk.stream() as stream:
        said = [await talk.say(f"n {n}") for n in range(5)]
        await stream.until_text("n 4")
        same([each["id"] for each in stream.activities], said, "ids")


@group.check(150, Need.BOT)
async def bot_typing(s: Subject) -> None:
    """Bot typing → frame with an id and the previous `watermark`; not on GA; not replayed after reconnect."""
    talk = await s.start()
    async with talk.stream() as stream:
        await talk.say("before")
        id_ = await talk.say({"type": "typing"})
        await talk.say("after")
        await stream.until_text("after")
        same([each["type"] for each in stream.activities], ["message", "typing", "message"], "the stream")
        same(stream.activities[1].get("id"), id_, "id")
        same(stream.sets[1]["watermark"], stream.sets[0]["watermark"], "watermark")
    same(await two_replays(talk, "after"), [["message", "message"]] * 2, "replay and Get Activities")


@group.check(151)
async def client_typing(s: Subject) -> None:
    """Client typing → echoed live with id and clientActivityID."""
    talk = await s.start()
    async with talk.stream() as stream:
        id_ = await talk.sent({**TYPING, "channelData": {"clientActivityID": "c1"}})
        echo = await stream.next_activity()
        same(echo["id"], id_, "id")
        same(echo["channelData"], {"clientActivityID": "c1"}, "channelData")


def chunk(kind: str, stream_id: str | None, number: int) -> Activity:
    """Part of a livestream; the final one has no number."""
    data = {"streamType": kind, "streamId": stream_id, "streamSequence": number if kind != "final" else None}
    return {"type": "typing", "channelData": {name: value for name, value in data.items() if value is not None}}


@group.check(152, Need.BOT)
async def livestream(s: Subject) -> None:
    """Livestream chunks (typing) then final message → delivered in order; after reconnect only the final message is
    replayed."""
    talk = await s.start()
    async with talk.stream() as stream:
        first = await talk.say({**chunk("streaming", None, 1), "text": "A"})
        for number, text in ((2, "A quick"), (3, "A quick brown")):
            await talk.say({**chunk("streaming", first, number), "text": text})
        await talk.say({**chunk("final", first, 4), "type": "message", "text": "A quick brown fox."})
        await stream.until_text("A quick brown fox.")
        same(stream.texts, ["A", "A quick", "A quick brown", "A quick brown fox."], "the stream")
    same(await two_replays(talk, "A quick brown fox."), [["message"]] * 2, "replay and Get Activities")


@group.check(153, Need.BOT)
async def livestream_without_content(s: Subject) -> None:
    """Contentless final typing (`streamType` final) → replayed on a stream after reconnect, not on GA."""
    talk = await s.start()
    first = await talk.say({**chunk("streaming", None, 1), "text": "Hm"})
    await talk.say(chunk("final", first, 2))
    await talk.say("after")
    same(await two_replays(talk, "after"), [["typing", "message"], ["message"]], "replay and Get Activities")


@group.check(154, Need.CONTROL)
async def collision(s: Subject) -> None:
    """With the limit set to 1: second stream for C → old one closes with 4409 `collision`, new one receives
    everything."""
    async with s.brief() as brief:
        talk = await brief.start()
        async with talk.stream() as old:
            await talk.sent("one")
            await old.until_text("one")
            async with talk.stream() as new:
                same(await old.until_closed(), (4409, "collision"), "the old one")
                await new.until_text("one")
                await brief.client.send(talk.id, "two")
                await new.until_text("two")


@group.check(155)
async def eight_streams(s: Subject) -> None:
    """Default limit: eight streams all receive all activities; a ninth closes the oldest with 4409."""
    talk = await s.start()
    async with AsyncExitStack() as left:
        streams = [await left.enter_async_context(talk.stream()) for _ in range(8)]
        await talk.sent("to all")
        for stream in streams:
            await stream.until_text("to all")
        await left.enter_async_context(talk.stream())
        same((await streams[0].until_closed())[0], 4409, "close code of the oldest")
        expect(all(stream.open for stream in streams[1:]), "another one was closed")


@group.check(156, Need.CONTROL)
async def outlived(s: Subject) -> None:
    """Token of the stream's opener expires → stream stays open and keeps delivering; sends get 403 `TokenExpired`."""
    async with s.brief() as brief:
        talk = await brief.start()
        async with talk.stream() as stream:
            await expired(brief)  # and so is the one that was made before
            refused(await talk.send("too late"), 403, "TokenExpired")
            accepted(await brief.client.send(talk.id, "by the secret"))
            await stream.until_text("by the secret")


@group.check(157)
async def refresh_meanwhile(s: Subject) -> None:
    """Refresh or RC while a stream is open → stream unaffected."""
    talk = await s.start()
    async with talk.stream() as stream:
        accepted(await talk.client.refresh())
        await talk.reconnect()
        await talk.reconnect("")
        await talk.sent("hello")
        await stream.until_text("hello")
        same(stream.texts, ["hello"], "the stream")


@group.check(159, Need.CONTROL)
async def stop(s: Subject) -> None:
    """SIGTERM with open streams → close 1001; after restart RC with last WM → no activity missing."""
    async with s.quick() as quick:
        talk = await quick.start()
        async with talk.stream() as stream:
            await talk.sent("one")
            await stream.until_text("one")
            if quick.running is not None:
                stopping = asyncio.create_task(quick.running.terminate())
                same((await stream.until_closed())[0], 1001, "close code")
                await stopping
                await quick.running.start()
        accepted(await quick.client.send(talk.id, "two"))
        same(await talk.stream_of(stream.watermark, "two"), ["two"], "behind the last watermark")


@group.check(160, Need.CONTROL)
async def kill(s: Subject) -> None:
    """kill -9 during a send burst → after restart every activity whose POST answered 200 is on GA; every activity seen
    on a stream before the crash is on GA with the same id."""
    async with s.quick() as quick:
        talk = await quick.start()
        acknowledged: list[str] = []

        async def burst(name: int) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ConnectionError):
                for n in range(10):
                    answer = await talk.send(f"{name} {n}")
                    if answer.status == 200:
                        acknowledged.append(answer.json["id"])

        async with talk.stream() as stream:
            sending = [asyncio.create_task(burst(n)) for n in range(4)]
            await until(lambda: len(acknowledged) >= 8, "some are acknowledged")
            if quick.running is not None:
                await quick.running.restart(kill=True)
            await asyncio.gather(*sending, return_exceptions=True)
        log = {each["id"]: each for each in await quick.client.all_activities(talk.id)}
        same([id_ for id_ in acknowledged if id_ not in log], [], "acknowledged and lost")
        same([each["id"] for each in stream.activities if log.get(each["id"]) != each], [], "seen and lost")


@group.check(161, Need.BOT)
async def backlog_and_live(s: Subject) -> None:
    """Backlog of 1000 with concurrent live sends → one gap-free, duplicate-free sequence on the stream."""
    talk = await s.start()
    for start in range(0, 1000, 20):
        await asyncio.gather(*(talk.say(f"old {n}") for n in range(start, start + 20)))

    async def live() -> None:
        for n in range(50):
            await talk.say(f"live {n}")

    speaking = asyncio.create_task(live())
    async with talk.stream() as stream:
        await stream.until(lambda stream: len(stream.activities) >= 1050, "has everything")
        await speaking
        same([each["id"] for each in stream.activities], [each["id"] for each in await talk.log()], "ids")


@group.check(162, Need.BOT)
async def multimodal(s: Subject) -> None:
    """`/stream/multimodal` with a JSON message frame → delivered to the bot and echoed; same replay behaviour as
    `/stream`."""
    talk = await three(s)
    url = talk.opened.stream_url.replace("/stream?", "/stream/multimodal?")
    async with talk.stream(url) as stream:
        await stream.until_text("three")
        await stream.say(json.dumps({**MESSAGE, "from": {"id": USER}, "text": "spoken"}))
        await stream.until_text("spoken")
        same(stream.texts, ["one", "two", "three", "spoken"], "the stream")
    await s.bot.wait_for(lambda each: each.conversation_id == talk.id and each.text == "spoken")
