"""Streams (spec 7, 8.4): what their frames look like, what ends them, and what no end of them may cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from landline.config import Settings
from landline.conformance.directline import Activity, ClientStream, DirectLine, edited
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.streams import (
    Follower,
    log_of,
    numbers,
    path_of,
    resident_bytes,
    say,
    say_all,
    server_holds,
    started,
    until,
)
from support.wires import close, handshake

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEEPALIVE_S = 0.5
STALL_S = 2.5
MESSAGE_BYTES = 64 * 1024
"""The largest message that a client may send on a stream (7.4)."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lively(tmp_path_factory: pytest.TempPathFactory, lasting_bot: ScriptedBot) -> AsyncIterator[Landline]:
    """A server with short keep-alives and tokens, and one stream per conversation."""
    data = tmp_path_factory.mktemp("lively") / "data"
    async with Landline(
        data,
        bot=lasting_bot.endpoint,
        drain_s=0,
        keepalive_s=KEEPALIVE_S,
        dead_peer_s=1,
        token_ttl_s=1,
        clock_leeway_s=0,
        streams_per_conversation=1,
    ) as landline:
        yield landline


@pytest_asyncio.fixture(loop_scope="module")
async def single(lively: Landline, bot: ScriptedBot) -> AsyncIterator[DirectLine]:
    """A client of `lively`, with the secret."""
    async with DirectLine(lively.directline, SECRET) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def stream(client: DirectLine, conversation_id: str) -> AsyncIterator[ClientStream]:
    """A stream of `conversation_id`, from its beginning."""
    async with client.stream((await client.reconnect(conversation_id, "")).stream_url) as stream:
        yield stream


class TestFrames:
    @pytest.mark.item(144, 206)
    async def test_are_one_activity_each_and_never_none(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """A replay of 500, and one from the middle. That DirectLineJS gets them in order is shown where it runs."""
        await say_all(bot, conversation_id, [f"n {n}" for n in range(500)])
        log = await client.all_activities(conversation_id)
        middle = await self._are_right(client, (await client.reconnect(conversation_id, "")).stream_url, log)
        opened = await client.reconnect(conversation_id, middle)
        await self._are_right(client, opened.stream_url, log[250:])

    async def _are_right(self, client: DirectLine, url: str, expected: list[Activity]) -> str:
        """Whether the frames of a new stream are as 7.3 says. The watermark behind its 250th activity."""
        async with client.stream(url) as stream:
            await stream.until(lambda stream: len(stream.activities) >= len(expected), "has them all")
            frames = [frame for frame in stream.frames if frame]
        assert all(isinstance(frame, str) for frame in stream.frames), "text frames only"
        sets: list[dict[str, Any]] = [json.loads(frame) for frame in frames]
        assert [each["activities"] for each in sets] == [[activity] for activity in expected]
        assert all(each.keys() == {"activities", "watermark"} for each in sets)
        watermarks = [each["watermark"] for each in sets]
        assert all(isinstance(each, str) and each for each in watermarks)
        assert len(set(watermarks)) == len(sets), "each stands behind its own activity"
        return str(watermarks[249])

    @pytest.mark.item(144)
    async def test_carry_what_get_activities_shows(
        self, client: DirectLine, conversation_id: str, stream: ClientStream
    ) -> None:
        """Live, too: the same ids, timestamps and content on both paths."""
        for n in range(5):
            await client.send(conversation_id, f"n {n}")
        await stream.until_text("n 4")
        assert stream.activities == await client.all_activities(conversation_id)
        page = await client.activities(conversation_id)
        assert stream.watermark == page.watermark

    @pytest.mark.item(145)
    async def test_are_empty_ones_while_nothing_happens(self, single: DirectLine, bot: ScriptedBot) -> None:
        """With `keepalive_s` shortened."""
        opened = await started(single, bot)
        async with single.stream(opened.stream_url) as stream:
            for n in range(1, 6):
                await stream.until(
                    lambda stream, n=n: stream.keep_alives >= n, f"is alive {n}", KEEPALIVE_S * 1.5 + 0.5
                )
        assert stream.frames == [""] * stream.keep_alives

    @pytest.mark.item(145)
    async def test_leave_no_silence_of_more_than_30_s_whatever_is_set(self, tmp_path: Path) -> None:
        assert Settings().keepalive_s == 30
        with pytest.raises(AssertionError, match="keepalive_s"):
            await Landline(tmp_path / "never-made", keepalive_s=30.1).start()

    async def test_stop_for_a_client_that_answers_no_ping(self, single: DirectLine, bot: ScriptedBot) -> None:
        """7.3: nothing heard for `dead_peer_s` after a Ping, and the connection is dropped without a close frame."""
        opened = await started(single, bot)
        async with single.stream(opened.stream_url, pongs=False) as deaf:
            assert await deaf.until_closed() == (1006, "")

    async def test_stop_after_dead_peer_s_though_keep_alives_are_far_apart(
        self, tmp_path: Path, bot: ScriptedBot
    ) -> None:
        keepalive_s, dead_peer_s = 4, 0.8
        async with (
            Landline(
                tmp_path / "data", bot=bot.endpoint, drain_s=0, keepalive_s=keepalive_s, dead_peer_s=dead_peer_s
            ) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            opened = await started(client, bot)
            async with client.stream(opened.stream_url, pongs=False) as deaf:
                await deaf.until(lambda each: each.keep_alives, "was sent a Ping")
                asked = time.monotonic()
                assert await deaf.until_closed() == (1006, "")
                assert 0.6 < time.monotonic() - asked < keepalive_s / 2


class TestWhatTheClientSays:
    @pytest.mark.item(146)
    async def test_empty_frames_are_ignored_without_an_answer(
        self, client: DirectLine, conversation_id: str, stream: ClientStream
    ) -> None:
        """Sixty of them, faster than one per second: the time between them is the client's."""
        for _ in range(60):
            await stream.say("")
        await stream.say("  \n")
        await client.send(conversation_id, "still open")
        await stream.until_text("still open")
        assert len(stream.frames) == 1, "the echo"

    @pytest.mark.item(147)
    @pytest.mark.parametrize("said", ["x", b"x", b"", b"\xff\x00", '{"type":"message"}', "x" * MESSAGE_BYTES])
    async def test_other_frames_are_ignored(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, stream: ClientStream, said: str | bytes
    ) -> None:
        heard = len(bot.heard(conversation_id))
        await stream.say(said)
        await say(bot, conversation_id, "still open")
        await stream.until_text("still open")
        assert len(stream.frames) == 1
        assert len(bot.heard(conversation_id)) == heard
        assert len(await client.all_activities(conversation_id)) == 1

    @pytest.mark.item(147)
    @pytest.mark.parametrize(
        "said", ["x" * (MESSAGE_BYTES + 1025), b"x" * (MESSAGE_BYTES + 1025)], ids=["text", "binary"]
    )
    async def test_a_message_of_over_64_kib_closes_it_with_1009(self, stream: ClientStream, said: str | bytes) -> None:
        await stream.say(said)
        assert await stream.until_closed() == (1009, "message-too-big")

    async def test_its_close_is_answered_with_its_own_code(
        self, landline: Landline, client: DirectLine, conversation_id: str
    ) -> None:
        """7.7."""
        url = (await client.reconnect(conversation_id)).stream_url
        reader, writer = await asyncio.open_connection("127.0.0.1", landline.port)
        writer.write(handshake(path_of(url)) + close(4321))
        said = await reader.read()
        assert said.startswith(b"HTTP/1.1 101 ")
        assert said.endswith(bytes((0x88, 2)) + (4321).to_bytes(2, "big"))
        writer.close()


class TestOrder:
    @pytest.mark.item(148)
    async def test_an_echo_comes_before_any_reply_to_it(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, stream: ClientStream
    ) -> None:
        """The bot replies in the middle of its turn, as fast as it can."""

        async def reply(bot: ScriptedBot, activity: Activity) -> None:
            if activity["type"] == "message":
                await bot.reply(conversation_id, activity["id"], {"type": "message", "text": f"re {activity['text']}"})

        bot.on_activity = reply
        await asyncio.gather(*(client.send(conversation_id, f"n {n}") for n in range(20)))
        await stream.until(lambda stream: len(stream.activities) == 40, "has 20 echoes and 20 replies")
        place = {activity["id"]: n for n, activity in enumerate(stream.activities)}
        for activity in stream.activities:
            if "replyToId" in activity:
                assert place[activity["replyToId"]] < place[activity["id"]]

    @pytest.mark.item(149)
    async def test_what_the_bot_says_comes_in_the_order_of_acceptance(
        self, bot: ScriptedBot, conversation_id: str, stream: ClientStream
    ) -> None:
        accepted = [await say(bot, conversation_id, f"n {n}") for n in range(5)]
        await stream.until_text("n 4")
        assert [each["id"] for each in stream.activities] == accepted
        assert numbers(conversation_id, accepted) == [0, 1, 2, 3, 4]

    @pytest.mark.item(161)
    async def test_a_backlog_and_what_comes_meanwhile_are_one_sequence(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """Streams open all the time while clients and the bot go on, on top of a backlog of 1000."""
        await say_all(bot, conversation_id, [f"old {n}" for n in range(1000)])
        url = (await client.reconnect(conversation_id, "")).stream_url
        async with AsyncExitStack() as left_at_the_end:
            streams = []
            for n in range(8):
                live = [say(bot, conversation_id, f"bot {n} {m}") for m in range(10)]
                live += [sent(client, conversation_id, f"client {n} {m}") for m in range(10)]
                opening = left_at_the_end.enter_async_context(client.stream(url))
                stream, *_ = await asyncio.gather(opening, *live)
                streams.append(stream)
            for stream in streams:
                await stream.until(lambda stream: len(stream.activities) >= 1160, "has everything")
        log = await client.all_activities(conversation_id)
        assert numbers(conversation_id, [each["id"] for each in log]) == list(range(1160))
        for stream in streams:
            assert stream.activities == log


class TestWhatPassesBy:
    """Transient activities (6.3, D-33, D-39, D-49)."""

    @pytest.mark.item(150)
    async def test_typing_of_the_bot_is_shown_and_not_kept(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, stream: ClientStream
    ) -> None:
        await say(bot, conversation_id, "before")
        answer = await bot.send(conversation_id, {"type": "typing"})
        await say(bot, conversation_id, "after")
        await stream.until_text("after")
        assert [each["type"] for each in stream.activities] == ["message", "typing", "message"]
        typing = stream.activities[1]
        assert typing["id"] == answer.json["id"]
        assert typing["id"].startswith(f"{conversation_id}|t")
        assert stream.sets[1]["watermark"] == stream.sets[0]["watermark"], "it repeats the one before it"
        assert [each["type"] for each in await client.all_activities(conversation_id)] == ["message", "message"]
        async with client.stream((await client.reconnect(conversation_id, "")).stream_url) as again:
            await again.until_text("after")
            assert [each["type"] for each in again.activities] == ["message", "message"]

    @pytest.mark.item(150)
    async def test_typing_before_everything_else_repeats_the_position_of_the_stream_url(
        self, bot: ScriptedBot, conversation_id: str, stream: ClientStream
    ) -> None:
        await bot.send(conversation_id, {"type": "typing"})
        await stream.until(lambda stream: stream.activities, "shows it")
        assert [each["watermark"] for each in stream.sets] == ["0"]

    @pytest.mark.item(151)
    async def test_typing_of_a_client_is_echoed(
        self, client: DirectLine, conversation_id: str, stream: ClientStream
    ) -> None:
        """Web Chat waits for the echo of everything it posts, and knows it by its `clientActivityID`."""
        typing = {"type": "typing", "from": {"id": "user"}, "channelData": {"clientActivityID": "c1"}}
        answer = await client.send(conversation_id, typing)
        await stream.until(lambda stream: stream.activities, "shows it")
        (echo,) = stream.activities
        assert echo["id"] == answer.json["id"]
        assert echo["channelData"] == {"clientActivityID": "c1"}
        assert await client.all_activities(conversation_id) == []

    @pytest.mark.item(152)
    @pytest.mark.parametrize("in_channel_data", [True, False], ids=["channelData", "entity"])
    async def test_a_livestream_comes_chunk_by_chunk_and_leaves_its_final_message(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, stream: ClientStream, in_channel_data: bool
    ) -> None:
        text, stream_id = "", ""
        for n, word in enumerate(("A ", "quick ", "brown ", "fox"), 1):
            text += word
            chunk = {"type": "typing", "text": text, **livestream(in_channel_data, "streaming", stream_id, n)}
            answer = await bot.send(conversation_id, chunk)
            stream_id = stream_id or answer.json["id"]
        final = {"type": "message", "text": "A quick brown fox.", **livestream(in_channel_data, "final", stream_id, 5)}
        await bot.send(conversation_id, final)
        await stream.until_text("A quick brown fox.")
        assert stream.texts == ["A ", "A quick ", "A quick brown ", "A quick brown fox", "A quick brown fox."]
        assert len({each["id"] for each in stream.activities}) == 5
        async with client.stream((await client.reconnect(conversation_id, "")).stream_url) as again:
            await again.until_text("A quick brown fox.")
            assert again.texts == ["A quick brown fox."]

    @pytest.mark.item(153)
    @pytest.mark.parametrize("in_channel_data", [True, False], ids=["channelData", "entity"])
    async def test_a_livestream_without_content_leaves_its_end(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, in_channel_data: bool
    ) -> None:
        """Else the typing indicator of a client that was away would never go."""
        first = await bot.send(conversation_id, {"type": "typing", **livestream(in_channel_data, "informative", "", 1)})
        end = {"type": "typing", **livestream(in_channel_data, "final", first.json["id"], 2)}
        ended = (await bot.send(conversation_id, end)).json["id"]
        await say(bot, conversation_id, "next")
        async with client.stream((await client.reconnect(conversation_id, "")).stream_url) as again:
            await again.until_text("next")
            assert [each.get("text", each["id"]) for each in again.activities] == [ended, "next"]
        assert [each["type"] for each in await client.all_activities(conversation_id)] == ["message"]


class TestCollision:
    @pytest.mark.item(154)
    async def test_with_a_limit_of_one_the_new_stream_wins(self, single: DirectLine, bot: ScriptedBot) -> None:
        opened = await started(single, bot)
        async with single.stream(opened.stream_url) as old:
            await say(bot, opened.conversation_id, "before")
            await old.until_text("before")
            async with single.stream(opened.stream_url) as new:
                assert await old.until_closed() == (4409, "collision")
                await say(bot, opened.conversation_id, "after")
                await new.until_text("after")
                assert new.texts == ["before", "after"]
        assert old.texts == ["before"]

    @pytest.mark.item(155)
    async def test_eight_streams_get_everything_and_a_ninth_closes_the_oldest(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        url = (await client.reconnect(conversation_id)).stream_url
        async with AsyncExitStack() as left_at_the_end:
            streams = [await left_at_the_end.enter_async_context(client.stream(url)) for _ in range(8)]
            await say(bot, conversation_id, "to eight")
            for stream in streams:
                await stream.until_text("to eight")
            streams.append(await left_at_the_end.enter_async_context(client.stream(url)))
            assert await streams[0].until_closed() == (4409, "collision")
            await say(bot, conversation_id, "to the rest")
            for stream in streams[1:]:
                await stream.until_text("to the rest")
            assert [stream.texts for stream in streams] == [["to eight"]] + [["to eight", "to the rest"]] * 8
            assert all(stream.open for stream in streams[1:])


class TestWhatDoesNotEndIt:
    @pytest.mark.item(156)
    async def test_a_token_that_expires(self, single: DirectLine, bot: ScriptedBot) -> None:
        """D-43. It opened the stream itself, which is the hardest case."""
        opened = await started(single, bot)
        expiring = single.using(opened.token)
        url = edited(opened.stream_url, t=opened.token)
        async with single.stream(url) as stream:
            async with asyncio.timeout(5):
                while (answer := await expiring.send(opened.conversation_id, "mine")).status == 200:
                    await asyncio.sleep(0.1)
            assert answer.error == (403, "TokenExpired")
            assert (await single.handshake(url)).error == (403, "TokenExpired")
            await say(bot, opened.conversation_id, "still delivered")
            await stream.until_text("still delivered")

    @pytest.mark.item(157)
    async def test_a_refresh_or_a_reconnect(self, client: DirectLine, bot: ScriptedBot) -> None:
        opened = await started(client, bot)
        user = client.using(opened.token)
        async with client.stream(opened.stream_url) as stream:
            assert (await user.refresh()).status == 200
            assert (await user.reconnect(opened.conversation_id, "")).status == 200
            await say(bot, opened.conversation_id, "one")
            assert (await user.start()).status == 200
            await say(bot, opened.conversation_id, "two")
            await stream.until_text("two")
            assert stream.texts == ["one", "two"]
            assert len([frame for frame in stream.frames if frame]) == 2


class TestAClientThatStopsReading:
    STREAMS = 8
    MESSAGES = 2000
    TEXT = "x" * 4000
    MAY_COST = 40 * 1024 * 1024
    """What all of it may cost: the log's tail is 8 MB, and eight copies of it would be 64."""

    @pytest.mark.item(158)
    async def test_is_sent_away_costs_no_memory_and_loses_nothing(self, tmp_path: Path, bot: ScriptedBot) -> None:
        async with (
            Landline(
                tmp_path / "data", bot=bot.endpoint, drain_s=0, stall_s=STALL_S, close_timeout_s=0.5, keepalive_s=1
            ) as landline,
            DirectLine(landline.directline, SECRET) as client,
            AsyncExitStack() as left_at_the_end,
        ):
            opened = await started(client, bot)
            await self._warm_up(client, bot)
            slow = [
                await left_at_the_end.enter_async_context(client.stream(opened.stream_url, receive_buffer=4096))
                for _ in range(self.STREAMS)
            ]
            for stream in slow:
                stream.stop_reading()
            cost = await self._cost_of_saying_everything(landline, bot, opened.conversation_id)
            assert cost < self.MAY_COST, f"{cost / 1e6:.1f} MB"
            for stream in slow:
                await until(lambda stream=stream: not server_holds(stream), "let go of who does not read", STALL_S * 6)
                stream.go_on_reading()
            log = await client.all_activities(opened.conversation_id)
            assert len(log) == self.MESSAGES
            for stream in slow:
                assert await stream.until_closed() in ((1013, "slow-consumer"), (1006, ""))
                await self._nothing_is_missing(client, opened.conversation_id, stream, log)

    @pytest.mark.item(158)
    async def test_is_sent_away_after_stall_s_though_keep_alives_are_far_apart(
        self, tmp_path: Path, bot: ScriptedBot
    ) -> None:
        """With `stall_s` alone shortened, and the time for the close handshake that nobody answers."""
        async with (
            Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, stall_s=1, close_timeout_s=0.5) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            opened = await started(client, bot)
            async with client.stream(opened.stream_url, receive_buffer=4096) as stream:
                stream.stop_reading()
                for _ in range(4):
                    await say_all(bot, opened.conversation_id, [self.TEXT] * 100)
                full = time.monotonic()
                await until(lambda: not server_holds(stream), "let go of who does not read", 10)
                assert time.monotonic() - full < 5, "the next tick comes after 10 s"
                stream.go_on_reading()

    async def _warm_up(self, client: DirectLine, bot: ScriptedBot) -> None:
        """So that what a process allocates only once is not counted."""
        other = (await started(client, bot)).conversation_id
        await say_all(bot, other, [self.TEXT] * 200)

    async def _cost_of_saying_everything(self, landline: Landline, bot: ScriptedBot, conversation_id: str) -> int:
        before = most = resident_bytes(landline.pid)
        for _ in range(20):
            await say_all(bot, conversation_id, [self.TEXT] * (self.MESSAGES // 20))
            most = max(most, resident_bytes(landline.pid))
        return most - before

    async def _nothing_is_missing(
        self, client: DirectLine, conversation_id: str, stream: ClientStream, log: list[Activity]
    ) -> None:
        assert len(stream.activities) < len(log), "it was cut off on the way"
        again = await client.reconnect(conversation_id, stream.watermark)
        async with client.stream(again.stream_url) as rest:
            missing = len(log) - len(stream.activities)
            await rest.until(lambda rest: len(rest.activities) >= missing, "has the rest")
            assert stream.activities + rest.activities == log


class TestAServerThatEnds:
    @pytest.mark.item(159)
    async def test_at_a_stop_all_streams_are_told_and_come_back_to_everything(
        self, tmp_path: Path, bot: ScriptedBot
    ) -> None:
        """While it goes away, calls on open connections are still served, and only a stream handshake is refused."""
        async with (
            Landline(tmp_path / "data", bot=bot.endpoint, drain_s=1) as landline,
            DirectLine(landline.directline, SECRET) as client,
            AsyncExitStack() as left_at_the_end,
        ):
            opened = await started(client, bot)
            conversation_id = opened.conversation_id
            streams = [await left_at_the_end.enter_async_context(client.stream(opened.stream_url)) for _ in range(4)]
            await say(bot, conversation_id, "before")
            for stream in streams:
                await stream.until_text("before")
            reader, writer = await asyncio.open_connection("127.0.0.1", landline.port)
            writer.write(b"GET /live HTTP/1.1\r\nHost: here\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
            ending = asyncio.create_task(landline.terminate())
            assert await streams[0].until_closed() == (1001, "going-away")
            async with asyncio.timeout(5):
                assert (await client.send(conversation_id, "while it goes")).status == 200
            writer.write(handshake(path_of(opened.stream_url)))
            refused = await reader.read()
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"ServiceError" in refused
            writer.close()
            for stream in streams:
                assert await stream.until_closed() == (1001, "going-away")
            assert await ending == 0
            await landline.start()
            await say(bot, conversation_id, "after")
            log = await log_of(landline, conversation_id)
            assert [each["text"] for each in log] == ["before", "while it goes", "after"]
            for stream in streams:
                again = await client.reconnect(conversation_id, stream.watermark)
                async with client.stream(again.stream_url) as rest:
                    await rest.until_text("after")
                    assert stream.activities + rest.activities == log

    @pytest.mark.item(160)
    async def test_at_a_kill_nothing_that_was_answered_or_seen_is_gone(self, tmp_path: Path, bot: ScriptedBot) -> None:
        seed = time.time_ns()
        print(f"seed: {seed}")
        chance = random.Random(seed)
        async with (
            Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            opened = await started(client, bot)
            conversation_id = opened.conversation_id
            async with Follower(client, opened) as follower:
                for burst in range(3):
                    acknowledged = Acknowledged(client, bot, conversation_id, f"burst {burst}")
                    async with acknowledged.bursting():
                        await acknowledged.until(chance.randrange(20, 120))
                        await landline.kill()
                    seen = list(follower.activities)
                    await landline.start()
                    log = {each["id"]: each for each in await log_of(landline, conversation_id)}
                    assert acknowledged.ids <= log.keys()
                    assert seen, "the follower saw some of it"
                    assert all(log.get(each["id"]) == each for each in seen)
                    for text, activity_id in acknowledged.texts.items():
                        assert log[activity_id]["text"] == text
                await say(bot, conversation_id, "the last one")
                await follower.until(lambda follower: len(follower.ids) >= len(log) + 1, "has everything")
                whole = await log_of(landline, conversation_id)
                assert follower.activities == whole
                assert numbers(conversation_id, follower.ids) == list(range(len(whole)))


class Acknowledged:
    """Clients and a bot that send as fast as they can, and what they were told about it."""

    def __init__(self, client: DirectLine, bot: ScriptedBot, conversation_id: str, name: str) -> None:
        self.texts: dict[str, str] = {}
        self._client = client
        self._bot = bot
        self._conversation_id = conversation_id
        self._name = name

    def __len__(self) -> int:
        return len(self.texts)

    async def until(self, count: int) -> None:
        """Wait for so many answers of 200."""
        await until(lambda: len(self) >= count, f"has {count} answers")

    @property
    def ids(self) -> set[str]:
        """The ids in all answers of 200."""
        return set(self.texts.values())

    @contextlib.asynccontextmanager
    async def bursting(self) -> AsyncIterator[None]:
        """Inside the block everybody sends; when it is left, what is still under way comes to its end."""
        senders = [self._until_it_breaks(self._client_says(n)) for n in range(6)]
        senders += [self._until_it_breaks(self._bot_says(n)) for n in range(6)]
        tasks = [asyncio.create_task(sender) for sender in senders]
        try:
            yield
        finally:
            await asyncio.gather(*tasks)

    async def _until_it_breaks(self, speech: AsyncIterator[tuple[str, str]]) -> None:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async for text, activity_id in speech:
                self.texts[text] = activity_id

    async def _client_says(self, who: int) -> AsyncIterator[tuple[str, str]]:
        for text in _numbered(f"{self._name} client {who}"):
            answer = await self._client.send(self._conversation_id, text)
            if answer.status == 200:
                yield text, answer.json["id"]

    async def _bot_says(self, who: int) -> AsyncIterator[tuple[str, str]]:
        for text in _numbered(f"{self._name} bot {who}"):
            yield text, await say(self._bot, self._conversation_id, text)


def _numbered(name: str) -> Iterator[str]:
    return (f"{name} {n}" for n in range(100_000))


async def sent(client: DirectLine, conversation_id: str, text: str) -> None:
    """A client's message that must be taken."""
    answer = await client.send(conversation_id, text)
    assert answer.status == 200, answer


def livestream(in_channel_data: bool, kind: str, stream_id: str, sequence: int) -> dict[str, object]:
    """Where bots say that an activity belongs to a livestream: in `channelData`, or in an entity (D-33)."""
    said: dict[str, object] = {"streamType": kind, "streamSequence": sequence}
    if stream_id:
        said["streamId"] = stream_id
    return {"channelData": said} if in_channel_data else {"entities": [{"type": "streaminfo", **said}]}
