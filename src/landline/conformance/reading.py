"""Group G: Get Activities (specification 5.4, 8.1 to 8.3, 10)."""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import datetime, timedelta

from landline.conformance.checks import Group, Need
from landline.conformance.expect import accepted, expect, refused, same
from landline.conformance.subject import USER, Conversation, Subject
from landline.conformance.transport import UNKNOWN

group = Group("G", "Get Activities")

TYPING = {"type": "typing", "from": {"id": USER}}
GARBAGE = ("garbage", "null", "undefined", "x" * 300, "99999-00000000")
"""Watermarks that were never issued, the last one beyond every head."""


async def three(s: Subject) -> Conversation:
    """A conversation with the messages one, two, three."""
    talk = await s.start()
    for text in ("one", "two", "three"):
        await talk.sent(text)
    return talk


async def page_texts(talk: Conversation, watermark: str | None) -> list[object]:
    """The texts of one page."""
    return [each.get("text") for each in (await talk.read(watermark)).activities]


@group.check(115)
async def nothing_yet(s: Subject) -> None:
    """New conversation without activities → 200 `{"activities":[],"watermark":"<non-empty>"}`."""
    answer = await (await s.start()).read()
    same(sorted(answer.json), ["activities", "watermark"], "properties")
    same(answer.activities, [], "activities")
    expect(isinstance(answer.json["watermark"], str) and answer.json["watermark"], answer)


@group.check(116)
async def from_the_beginning(s: Subject) -> None:
    """Absent, empty, `-`, `0` watermark → all retained activities from the first."""
    talk = await three(s)
    for watermark in (None, "", "-", "0"):
        same(await page_texts(talk, watermark), ["one", "two", "three"], f"behind {watermark!r}")


@group.check(117)
async def behind_the_last(s: Subject) -> None:
    """WM of the last page → empty `activities` and a string watermark."""
    talk = await three(s)
    answer = await talk.read((await talk.read()).watermark)
    same(answer.activities, [], "activities")
    expect(isinstance(answer.json["watermark"], str) and answer.json["watermark"], answer)


@group.check(118, Need.BOT)
async def pages(s: Subject) -> None:
    """250 activities → pages of at most 100; concatenation equals the full ordered log, no duplicates, ends with an
    empty page."""
    talk = await s.start()
    texts = [f"n {n}" for n in range(250)]
    said = [await talk.say(text) for text in texts]
    found, watermark = [], None
    for _ in range(10):
        page = await talk.read(watermark)
        expect(len(page.activities) <= 100, f"a page of {len(page.activities)}")
        if not page.activities:
            break
        found += page.activities
        watermark = page.watermark
    else:
        expect(False, "no empty page")
    same([each["id"] for each in found], said, "ids")


@group.check(119)
async def empty_page(s: Subject) -> None:
    """Poll with the watermark of an *empty* page after new activities → exactly the new ones."""
    talk = await three(s)
    empty = await talk.read((await talk.read()).watermark)
    same(empty.activities, [], "activities")
    await talk.sent("four")
    same(await page_texts(talk, empty.watermark), ["four"], "behind the empty page")


@group.check(120)
async def never_issued(s: Subject) -> None:
    """Garbage, `null`, `undefined`, 300-character, other-conversation and beyond-head watermarks → 200, from the
    beginning, `X-DirectLine-Replay: from-start`."""
    talk, other = await three(s), await three(s)
    foreign = (await other.read()).watermark
    for watermark in (*GARBAGE, foreign):
        answer = await talk.read(watermark)
        same([each["text"] for each in answer.activities], ["one", "two", "three"], f"behind {watermark[:20]!r}")
        same(answer.replay, "from-start", f"X-DirectLine-Replay of {watermark[:20]!r}")


@group.check(121)
async def types(s: Subject) -> None:
    """`typing` never appears; `endOfConversation`, `event` do."""
    talk = await s.start()
    for type_ in ("typing", "event", "endOfConversation"):
        accepted(await talk.send({"type": type_, "from": {"id": USER}, "name": "x"}))
    same([each["type"] for each in await talk.log()], ["event", "endOfConversation"], "types")


@group.check(122)
async def typing_between(s: Subject) -> None:
    """Interleaved typing does not make the watermark skip a message."""
    talk = await s.start()
    seen: list[object] = []
    watermark = None
    for n in range(5):
        accepted(await talk.send(TYPING))
        page = await talk.read(watermark)
        watermark = page.watermark
        seen += [each["text"] for each in page.activities]
        await talk.sent(f"n {n}")
        accepted(await talk.send(TYPING))
    seen += [each["text"] for each in await talk.log(watermark)]
    same(seen, [f"n {n}" for n in range(5)], "texts")


@group.check(123)
async def two_readers(s: Subject) -> None:
    """Two readers with different watermarks do not influence each other."""
    talk = await s.start()
    await talk.sent("one")
    watermark = (await talk.read()).watermark
    await talk.sent("two")
    for _ in range(2):
        same(await page_texts(talk, None), ["one", "two"], "the first reader")
        same(await page_texts(talk, watermark), ["two"], "the second reader")


@group.check(124)
async def order(s: Subject) -> None:
    """Ids, sequence and timestamps strictly increase together (updates and deletes aside, D-35); timestamps differ by
    at least 1 ms."""
    talk = await s.start()
    await asyncio.gather(*(talk.sent(f"n {n}") for n in range(20)))
    log = await talk.log()
    numbers = [int(each["id"].rpartition("|")[2]) for each in log]
    same(numbers, sorted(set(numbers)), "numbers")
    times = [datetime.fromisoformat(each["timestamp"]) for each in log]
    for earlier, later in itertools.pairwise(times):
        expect(later - earlier >= timedelta(milliseconds=1), f"{later} after {earlier}")


@group.check(125)
async def unknown(s: Subject) -> None:
    """Unknown conversation with S → 404 `BadArgument`."""
    refused(await s.client.activities(UNKNOWN), 404, "BadArgument")


@group.check(126, Need.CONTROL)
async def truncated(s: Subject) -> None:
    """With `activity_ttl_s` set: reading with a WM older than the oldest retained activity gives 200, the remaining
    ones, `X-DirectLine-Replay: truncated`."""
    async with s.server(activity_ttl_s=1) as brief:
        talk = await brief.start()
        await talk.sent("old")
        watermark = (await talk.read()).watermark
        await talk.sent("old, too")
        end = time.monotonic() + 10
        while await talk.texts() and time.monotonic() < end:
            await asyncio.sleep(0.2)
        await talk.sent("new")
        answer = await talk.read(watermark)
        same([each["text"] for each in answer.activities], ["new"], "the remaining ones")
        same(answer.replay, "truncated", "X-DirectLine-Replay")


@group.check(127)
async def many_polls(s: Subject) -> None:
    """Poll at 1/s for 60 s → no 429; a burst of 40 polls → no 429 or 5xx, later answers delayed.

    Here the burst alone: who may poll 40 times at once may do so once a second."""
    talk = await s.start()
    answers = await asyncio.gather(*(talk.client.activities(talk.id) for _ in range(40)))
    same({answer.status for answer in answers}, {200}, "statuses of the burst")
