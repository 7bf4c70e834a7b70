"""Get Activities over the wire (spec 5.4, 8.2, 8.3; checklist G)."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
from datetime import UTC, datetime, timedelta

import pytest

from landline.conformance.directline import Activity, Answer, DirectLine, dumps
from landline.conformance.scripted_bot import ScriptedBot

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = 100
"""Default of `page_activities`."""
PAGE_BYTES = 1_048_576
"""Default of `page_bytes`."""


async def say(bot: ScriptedBot, conversation_id: str, activity: Activity | str) -> str:
    """Let the bot say something; its id."""
    message = {"type": "message", "text": activity} if isinstance(activity, str) else activity
    answer = await bot.send(conversation_id, message)
    assert answer.status == 200
    return str(answer.json["id"])


async def say_many(bot: ScriptedBot, conversation_id: str, count: int) -> dict[str, str]:
    """Let the bot say that many things, ten at a time; text by id."""
    said: dict[str, str] = {}

    async def talk(first: int) -> None:
        for n in range(first, count, 10):
            said[await say(bot, conversation_id, f"word {n}")] = f"word {n}"

    await asyncio.gather(*(talk(first) for first in range(10)))
    return said


async def pages(client: DirectLine, conversation_id: str) -> list[Answer]:
    """Every page from the beginning, the empty one at the end included."""
    found = [await client.activities(conversation_id)]
    while found[-1].activities:
        found.append(await client.activities(conversation_id, found[-1].watermark))
    return found


def number(activity: Activity) -> int:
    """The sequence number in an id."""
    return int(activity["id"].rpartition("|")[2])


def time_of(activity: Activity) -> datetime:
    """The timestamp, which has the form that 6.1 asks for."""
    text = activity["timestamp"]
    assert text.endswith("Z")
    assert len(text.rpartition(".")[2]) >= 4, "at least milliseconds"
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert moment.tzinfo == UTC
    return moment


class TestFromTheBeginning:
    @pytest.mark.item(115)
    async def test_a_new_conversation_has_nothing_and_a_position(
        self, client: DirectLine, conversation_id: str
    ) -> None:
        answer = await client.activities(conversation_id)
        assert answer.status == 200
        assert sorted(answer.json) == ["activities", "watermark"]
        assert answer.activities == []
        assert isinstance(answer.json["watermark"], str)
        assert answer.watermark
        assert answer.replay == "complete"

    @pytest.mark.item(116)
    @pytest.mark.parametrize("watermark", [None, "", "-", "0"], ids=["absent", "empty", "dash", "zero"])
    @pytest.mark.parametrize("count", [1, 7])
    async def test_everything_comes(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, watermark: str | None, count: int
    ) -> None:
        ids = [await say(bot, conversation_id, f"word {n}") for n in range(count)]
        answer = await client.activities(conversation_id, watermark)
        assert [each["id"] for each in answer.activities] == ids
        assert [number(each) for each in answer.activities] == list(range(count))
        assert answer.replay == "complete"

    async def test_of_a_repeated_parameter_the_first_counts(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        await say(bot, conversation_id, "word")
        head = (await client.activities(conversation_id)).watermark
        path = f"/conversations/{conversation_id}/activities"
        assert (await client.request("GET", f"{path}?watermark={head}&watermark=0")).activities == []
        assert len((await client.request("GET", f"{path}?watermark=0&watermark={head}")).activities) == 1
        assert len((await client.request("GET", f"{path}?watermark=&watermark={head}")).activities) == 1
        assert len((await client.request("GET", f"{path}?Watermark={head}")).activities) == 1, "another parameter"


class TestFromAWatermark:
    @pytest.mark.item(117)
    async def test_the_last_page_is_followed_by_an_empty_one(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        await say(bot, conversation_id, "word")
        last = (await client.activities(conversation_id)).watermark
        for _ in range(3):
            answer = await client.activities(conversation_id, last)
            assert answer.status == 200
            assert answer.activities == []
            assert isinstance(answer.json["watermark"], str)
            assert answer.watermark
            assert answer.replay == "complete"
            last = answer.watermark

    @pytest.mark.item(118)
    async def test_250_activities_come_in_pages_without_gap_or_repeat(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        said = await say_many(bot, conversation_id, 250)
        got = await pages(client, conversation_id)
        assert [len(page.activities) for page in got] == [100, 100, 50, 0]
        log = [each for page in got for each in page.activities]
        assert [number(each) for each in log] == list(range(250))
        assert {each["id"]: each["text"] for each in log} == said

    async def test_a_page_ends_at_a_mebibyte_and_holds_at_least_one(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """8.3: at most about 1 MiB, and an activity of 3 MiB all the same."""
        sizes = [300_000, 300_000, 300_000, 300_000, 3_000_000, 10, 10]
        url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/activities"
        for size in sizes:
            body = io.BytesIO(dumps({"type": "message", "text": "x" * size}))
            answer = await bot.request("POST", url, data=body, headers={"Content-Type": "application/json"})
            assert answer.status == 200
        got = await pages(client, conversation_id)
        assert [len(each["text"]) for page in got for each in page.activities] == sizes
        for page in got[:-1]:
            assert len(page.activities) == 1 or len(page.body) < PAGE_BYTES * 1.25
        assert len(got) <= 5

    @pytest.mark.item(119)
    async def test_an_empty_page_loses_nothing_of_what_comes_after(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        watermark = (await client.activities(conversation_id)).watermark
        for poll in range(5):
            empty = await client.activities(conversation_id, watermark)
            assert empty.activities == []
            ids = [await say(bot, conversation_id, f"poll {poll}, word {n}") for n in range(poll)]
            answer = await client.activities(conversation_id, empty.watermark)
            assert [each["id"] for each in answer.activities] == ids
            watermark = answer.watermark

    async def test_every_position_goes_on_exactly_behind_itself(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """8.2.3: whatever was given out, in any order and any number of times."""
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        dice = random.Random(seed)
        positions = [(0, (await client.activities(conversation_id)).watermark)]
        for n in range(30):
            await say(bot, conversation_id, f"word {n}")
            answer = await client.activities(conversation_id, dice.choice(positions)[1])
            positions.append((n + 1, answer.watermark))
        for position, watermark in dice.sample(positions, len(positions)) * 2:
            answer = await client.activities(conversation_id, watermark)
            assert [number(each) for each in answer.activities] == list(range(position, 30))
            assert answer.replay == "complete"


class TestAWatermarkThatIsNone:
    @pytest.mark.item(120)
    @pytest.mark.parametrize(
        "watermark",
        [
            "garbage",
            "null",
            "undefined",
            "NaN",
            "-1",
            "7777777",
            "123456789012",
            "01-00000000",
            "1-",
            "1-0000000g",
            "+1-00000000",
            "%20",
            "%00",
            "%FF%FE",
            "%F0%9F%99%82",
            "1.0",
            "99999999999999999999-00000000",
            "x" * 300,
            "1" * 300,
            "9" * 4000,
        ],
        ids=lambda watermark: watermark[:20],
    )
    async def test_starts_over_and_says_so(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, watermark: str
    ) -> None:
        ids = [await say(bot, conversation_id, f"word {n}") for n in range(3)]
        answer = await client.activities(conversation_id, watermark)
        assert answer.status == 200
        assert [each["id"] for each in answer.activities] == ids
        assert answer.replay == "from-start"
        assert (await client.activities(conversation_id, answer.watermark)).activities == []

    @pytest.mark.item(120)
    async def test_starts_over_when_it_is_of_another_conversation_or_of_a_history_that_never_was(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        other = (await client.start()).conversation_id
        await bot.wait_for(lambda each: each.conversation_id == other)
        ids = [await say(bot, conversation_id, f"word {n}") for n in range(3)]
        foreign = []
        for n in range(5):
            await say(bot, other, f"word {n}")
            foreign.append((await client.activities(other)).watermark)
        own = (await client.activities(conversation_id)).watermark
        position, _, tag = own.partition("-")
        assert position == "3"
        altered = f"{int(tag, 16) ^ 1:08x}"
        never = [
            f"3-{altered}",
            f"2-{tag}",
            f"4-{tag}",
            f"1000000-{tag}",
            f"3-{tag.upper()}x",
            f"3-{tag}-",
            f"03-{tag}",
        ]
        for watermark in (*foreign, *never):
            answer = await client.activities(conversation_id, watermark)
            assert answer.status == 200
            assert [each["id"] for each in answer.activities] == ids
            assert answer.replay == "from-start"
        assert (await client.activities(conversation_id, own)).activities == []


class TestWhatIsShown:
    @pytest.mark.item(121)
    async def test_typing_is_not_while_events_and_the_end_are(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        shown = ["message", "event", "endOfConversation", "messageReaction", "x.custom"]
        for kind in ("typing", *shown, "typing"):
            assert (await client.send(conversation_id, {"type": kind, "from": {"id": "user"}})).status == 200
        final = {"type": "typing", "channelData": {"streamType": "final", "streamId": "s"}}
        for activity in ({"type": "typing"}, *({"type": kind} for kind in shown), final):
            await say(bot, conversation_id, activity)
        log = await client.all_activities(conversation_id)
        assert [each["type"] for each in log] == [*shown, *shown]
        assert [each["from"]["id"] for each in log] == ["user"] * len(shown) + ["bot"] * len(shown)

    @pytest.mark.item(122)
    async def test_no_message_is_skipped_for_the_typing_around_it(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """Polled after every step; the typing that ends a livestream takes a number and is stepped over."""
        final = {"type": "typing", "channelData": {"streamType": "final", "streamId": "s"}}
        seen: list[str] = []
        expected: list[str] = []
        watermark: str | None = None
        for n in range(12):
            for activity in ({"type": "typing"}, final if n % 3 == 0 else {"type": "typing"}):
                await say(bot, conversation_id, activity)
                answer = await client.activities(conversation_id, watermark)
                seen += [each["text"] for each in answer.activities]
                watermark = answer.watermark
            if n % 2 == 0:
                expected.append(f"word {n}")
                await say(bot, conversation_id, expected[-1])
                await client.send(conversation_id, {"type": "typing", "from": {"id": "user"}})
        answer = await client.activities(conversation_id, watermark)
        seen += [each["text"] for each in answer.activities]
        assert seen == expected
        assert [each["text"] for each in await client.all_activities(conversation_id)] == expected

    async def test_a_page_of_nothing_but_hidden_entries_does_not_end_the_walk(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """A client pages on until a page is empty (8.3): more hidden entries than a page holds must not look so."""
        final = {"type": "typing", "channelData": {"streamType": "final", "streamId": "s"}}
        await say(bot, conversation_id, "before")
        await asyncio.gather(*(say(bot, conversation_id, final) for _ in range(PAGE + 20)))
        await say(bot, conversation_id, "after")
        assert [each["text"] for each in await client.all_activities(conversation_id)] == ["before", "after"]


class TestReaders:
    @pytest.mark.item(123)
    async def test_do_not_influence_each_other(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """One polls after every word, one at the end, one always from the beginning, and a stream reads along."""
        reconnected = await client.reconnect(conversation_id, "")
        quick: list[str] = []
        watermark: str | None = None
        slow = (await client.activities(conversation_id)).watermark
        async with client.stream(reconnected.stream_url) as stream:
            for n in range(20):
                await say(bot, conversation_id, f"word {n}")
                answer = await client.activities(conversation_id, watermark)
                quick += [each["text"] for each in answer.activities]
                watermark = answer.watermark
                everything = await client.using(reconnected.token).activities(conversation_id)
                assert len(everything.activities) == n + 1
            await stream.until_text("word 19")
        at_once = await client.activities(conversation_id, slow)
        expected = [f"word {n}" for n in range(20)]
        assert quick == expected
        assert [each["text"] for each in at_once.activities] == expected
        assert stream.texts == expected
        assert stream.activities == at_once.activities

    async def test_see_the_log_grow_at_its_end_only(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """While many write at once, each read is a beginning of what the log becomes."""
        writing = asyncio.create_task(say_many(bot, conversation_id, 200))
        reads = []
        while not writing.done():
            reads.append([each["id"] for each in await client.all_activities(conversation_id)])
        said = await writing
        final = [each["id"] for each in await client.all_activities(conversation_id)]
        assert set(final) == set(said)
        assert len(final) == len(said)
        for read in reads:
            assert read == final[: len(read)]


class TestOrder:
    @pytest.mark.item(124)
    async def test_ids_and_timestamps_rise_together(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """Sent faster than one a millisecond, from both sides."""
        await client.send(conversation_id, "first")
        sends = [client.send(conversation_id, f"client {n}") for n in range(60)]
        says = [say(bot, conversation_id, f"bot {n}") for n in range(60)]
        await asyncio.gather(*sends, *says)
        log = await client.all_activities(conversation_id)
        assert [number(each) for each in log] == list(range(121))
        for each in log:
            assert each["id"] == f"{conversation_id}|{number(each):07d}"
        times = [time_of(each) for each in log]
        for earlier, later in itertools.pairwise(times):
            assert later - earlier >= timedelta(milliseconds=1)


class TestAnUnknownConversation:
    @pytest.mark.item(125)
    @pytest.mark.parametrize(
        "unknown", ["NoSuchConversation0000", "x", "a.b", "%E2%82%AC", "x" * 65, "x" * 4000, "%2E%2E"], ids=str
    )
    async def test_is_404(self, client: DirectLine, unknown: str) -> None:
        for watermark in (None, "", "garbage"):
            answer = await client.activities(unknown, watermark)
            assert answer.error == (404, "BadArgument")
