"""What must hold from one end to the other (spec 8, 14 J): cuts, kills, rollbacks, deadlines, odd clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest
from yarl import URL

from landline.conformance.directline import Activity, DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.core.log import LAST_SEQUENCE
from landline.stores.sqlite import FILE
from support.landline import SECRET, Landline
from support.relay import Link, Relay
from support.streams import (
    Follower,
    log_of,
    numbers,
    open_files,
    resident_bytes,
    say,
    started,
    until,
)
from support.stuck_disk import environment, stuck

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://page.example.org"
HUNG = "hung"


class TestCuts:
    CUTS = 50
    MESSAGES = 1000
    BYTES = 4000
    """A connection is cut after so many bytes at most: in the handshake, in a frame or between two."""

    @pytest.mark.parametrize(
        "clients", [pytest.param(1, marks=pytest.mark.item(164)), pytest.param(2, marks=pytest.mark.item(165))]
    )
    async def test_a_client_that_is_cut_again_and_again_has_every_message_once(
        self, landline: Landline, client: DirectLine, bot: ScriptedBot, clients: int
    ) -> None:
        """More than the statement says: since a torn frame is not a frame, nothing even comes twice."""
        seed = time.time_ns()
        print(f"seed: {seed}")
        opened = await started(client, bot)
        async with contextlib.AsyncExitStack() as left_at_the_end:
            relays, followers = [], []
            for n in range(clients):
                relay = await left_at_the_end.enter_async_context(Relay(landline.port))
                relay.on_connect = self._cutting(random.Random(seed + n))
                wired = await left_at_the_end.enter_async_context(DirectLine(relay.directline, SECRET))
                there = await wired.reconnect(opened.conversation_id, "")
                followers.append(await left_at_the_end.enter_async_context(Follower(wired, there)))
                relays.append(relay)
            accepted = [await say(bot, opened.conversation_id, f"n {n}") for n in range(self.MESSAGES)]
            cut_meanwhile = min(len(relay.streams) for relay in relays) - 1
            for relay, follower in zip(relays, followers, strict=True):
                await until(lambda relay=relay: len(relay.streams) > self.CUTS, "was cut and came back", 20)
                await follower.until(lambda follower: len(follower.ids) >= self.MESSAGES, "has all messages")
                assert follower.ids == accepted
        assert numbers(opened.conversation_id, accepted) == list(range(self.MESSAGES))
        assert cut_meanwhile >= self.CUTS // 5, "many of the cuts were to be met while messages flowed"

    def _cutting(self, chance: random.Random) -> Callable[[Link], None]:
        """Cut the first `CUTS` streams, each at a point of its own."""
        left = [chance.randrange(1, self.BYTES) for _ in range(self.CUTS)]

        def on_connect(link: Link) -> None:
            if link.is_stream and left:
                link.cut_after(left.pop())

        return on_connect


class TestTheEndOfAConversation:
    @pytest.mark.item(171)
    async def test_is_an_activity_like_any_other(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """A goodbye of the bot after the client's end must arrive (D-31)."""
        async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
            end = {"type": "endOfConversation", "from": {"id": "user"}, "code": "completedSuccessfully"}
            answer = await client.send(conversation_id, end)
            assert answer.status == 200
            await say(bot, conversation_id, "goodbye")
            assert (await client.send(conversation_id, "one more thing")).status == 200
            await stream.until_text("one more thing")
            log = await client.all_activities(conversation_id)
            assert [each["type"] for each in log] == ["endOfConversation", "message", "message"]
            assert log[0]["id"] == answer.json["id"]
            assert log[0]["code"] == "completedSuccessfully"
            assert stream.activities == log
            assert stream.open
        assert (await client.reconnect(conversation_id)).status == 200


class TestRepliesToWhatNobodySaw:
    @pytest.mark.item(173)
    @pytest.mark.parametrize("by_path", [True, False])
    async def test_a_reply_to_a_join_has_no_reply_to_id(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, by_path: bool
    ) -> None:
        """Web Chat would wait 5 s for an activity that never comes."""
        join = bot.heard(conversation_id)[0]
        assert join["type"] == "conversationUpdate"
        if by_path:
            await bot.reply(conversation_id, join["id"], {"type": "message", "text": "welcome"})
        else:
            await say(bot, conversation_id, "welcome", replyToId=join["id"])
        (welcome,) = await client.all_activities(conversation_id)
        assert welcome["text"] == "welcome"
        assert "replyToId" not in welcome

    @pytest.mark.item(173)
    async def test_a_reply_to_a_message_has_one(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """So that the test above cannot pass for the wrong reason."""
        sent = (await client.send(conversation_id, "hello")).json["id"]
        await bot.reply(conversation_id, sent, {"type": "message", "text": "by path"})
        await say(bot, conversation_id, "by itself", replyToId=sent)
        log = await client.all_activities(conversation_id)
        assert [each.get("replyToId") for each in log] == [None, sent, sent]


class TestKills:
    @pytest.mark.item(186)
    async def test_an_id_that_was_shown_is_never_given_again(self, tmp_path: Path, bot: ScriptedBot) -> None:
        """Typing takes no number, so that nothing of it can come back as a message after a crash (D-49)."""
        async with (
            Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            opened = await started(client, bot)
            shown: list[str] = []
            for life in range(3):
                again = await client.reconnect(opened.conversation_id)
                async with client.stream(again.stream_url) as stream:
                    for _ in range(10):
                        await bot.send(opened.conversation_id, {"type": "typing"})
                        await client.send(opened.conversation_id, {"type": "typing", "from": {"id": "user"}})
                    await stream.until(lambda stream: len(stream.activities) == 20, "shows all typing")
                    await say(bot, opened.conversation_id, f"life {life}")
                    await stream.until_text(f"life {life}")
                    await bot.send(opened.conversation_id, {"type": "typing"})
                    await stream.until(lambda stream: len(stream.activities) == 22, "shows more typing")
                    shown += [each["id"] for each in stream.activities]
                    await landline.kill()
                await landline.start()
            assert len(set(shown)) == len(shown) == 66
            kept = [each["id"] for each in await log_of(landline, opened.conversation_id)]
            assert numbers(opened.conversation_id, kept) == [0, 1, 2]
            assert [each for each in shown if each in kept] == kept

    @pytest.mark.item(188)
    @pytest.mark.parametrize("by", ["start", "send"])
    @pytest.mark.parametrize("bot_is", ["refusing", "hanging"])
    @pytest.mark.parametrize("known_by", ["token", "page"])
    async def test_between_a_start_and_its_join_costs_nobody_a_greeting(
        self, tmp_path: Path, bot: ScriptedBot, by: str, bot_is: str, known_by: str
    ) -> None:
        """Killed before the join was written, and after it was written but before anybody knew what became of it."""
        async with Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline:
            async with DirectLine(landline.directline, SECRET) as client:
                ann = {"id": "ann"}
                user = client.using((await client.generate(user=ann if known_by == "token" else {})).token)
                await (bot.refuse() if bot_is == "refusing" else as_coroutine(bot.hang))
                opened = await user.start(user=ann if known_by == "page" else {})
                assert opened.status == 201
                if bot_is == "hanging":
                    await bot.wait_for(lambda each: each.conversation_id == opened.conversation_id)
                await landline.kill()
            told = len(bot.heard(opened.conversation_id))
            bot.release()
            await bot.accept()
            bot.on_activity = welcome_newcomers
            await landline.start()
            async with DirectLine(landline.directline, opened.token) as user:
                hello = {"type": "message", "from": {"id": "ann"}, "text": "hello"}
                again = await (user.start() if by == "start" else user.send(opened.conversation_id, hello))
                assert again.status == 200
                url = (await user.reconnect(opened.conversation_id, "")).stream_url
                async with user.stream(url) as stream:
                    await stream.until_text("welcome bot, ann")
            join, *rest = bot.heard(opened.conversation_id)[told:]
            assert [member["id"] for member in join["membersAdded"]] == ["bot", "ann"]
            assert [each["type"] for each in rest] == (["message"] if by == "send" else [])

    async def test_a_clean_stop_repeats_no_join(self, tmp_path: Path, bot: ScriptedBot) -> None:
        """6.4: a join reaches the bot twice only after a crash."""
        async with Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline:
            async with DirectLine(landline.directline, SECRET) as client:
                opened = await started(client, bot)
                await client.send(opened.conversation_id, "hello")
            await landline.restart()
            async with DirectLine(landline.directline, SECRET) as client:
                await client.send(opened.conversation_id, "hello again")
            heard = [each["type"] for each in bot.heard(opened.conversation_id)]
            assert heard == ["conversationUpdate", "conversationUpdate", "message", "message"]


class TestAStoreThatWasRolledBack:
    @pytest.mark.item(189)
    @pytest.mark.parametrize("beyond", [True, False], ids=["beyond the head", "with a foreign tag"])
    async def test_is_noticed_and_everything_is_replayed(self, tmp_path: Path, bot: ScriptedBot, beyond: bool) -> None:
        """An old copy of the data directory is put back without a word, and the conversation goes on differently."""
        data, copy = tmp_path / "data", tmp_path / "copy"
        landline = Landline(data, bot=bot.endpoint, drain_s=0)
        async with landline, DirectLine(landline.directline, SECRET) as client:
            opened = await started(client, bot)
            for n in range(3):
                await say(bot, opened.conversation_id, f"common {n}")
        shutil.copytree(data, copy)
        async with landline, DirectLine(landline.directline, SECRET) as client:
            for n in range(3):
                await say(bot, opened.conversation_id, f"lost {n}")
            newer = (await client.activities(opened.conversation_id)).watermark
        shutil.rmtree(data)
        shutil.copytree(copy, data)
        async with landline, DirectLine(landline.directline, SECRET) as client:
            others = [f"other {n}" for n in range(2 if beyond else 5)]
            for text in others:
                await say(bot, opened.conversation_id, text)
            expected = [f"common {n}" for n in range(3)] + others
            warnings = rollback_warnings(landline)
            again = await client.reconnect(opened.conversation_id, newer)
            assert (again.status, again.replay) == (200, "from-start")
            async with client.stream(again.stream_url) as stream:
                await stream.until_text(expected[-1])
                assert stream.texts == expected
            assert rollback_warnings(landline) == warnings + 1
            page = await client.activities(opened.conversation_id, newer)
            assert (page.status, page.replay) == (200, "from-start")
            assert [each["text"] for each in page.activities] == expected
            assert rollback_warnings(landline) == warnings + 2
            assert (await client.activities(opened.conversation_id, page.watermark)).replay == "complete"


class TestADeclaredRestore:
    """8.1.6: ids are never reused, and no reader concludes loss from the gap (D-44)."""

    @pytest.mark.parametrize("how", ["restore", "doctor"])
    async def test_gives_no_id_twice_and_every_position_of_before_goes_on(
        self, tmp_path: Path, bot: ScriptedBot, how: str
    ) -> None:
        data, copy = tmp_path / "data", tmp_path / "copy"
        landline = Landline(data, bot=bot.endpoint, drain_s=0)
        async with landline, DirectLine(landline.directline, SECRET) as client:
            opened = await started(client, bot)
            for n in range(3):
                await say(bot, opened.conversation_id, f"common {n}")
            page = await client.activities(opened.conversation_id)
            older = page.watermark
        shutil.copytree(data, copy)
        async with landline, DirectLine(landline.directline, SECRET) as client:
            for n in range(3):
                await say(bot, opened.conversation_id, f"lost {n}")
            lost = await client.activities(opened.conversation_id, older)
        shutil.rmtree(data)
        if how == "doctor":
            shutil.copytree(copy, data)
        await command("restore", copy, "--data", data) if how == "restore" else await command(
            "doctor", "--restored", "--data", data
        )
        async with landline, DirectLine(landline.directline, SECRET) as client:
            warnings = rollback_warnings(landline)
            quiet = await client.reconnect(opened.conversation_id)
            at_head = await client.activities(opened.conversation_id, older)
            assert (at_head.activities, at_head.replay) == ([], "complete")
            async with client.stream(quiet.stream_url) as live:
                others = [f"other {n}" for n in range(3)]
                for text in others:
                    await say(bot, opened.conversation_id, text)
                await live.until_text(others[-1])
                assert live.texts == others
            for watermark in (older, at_head.watermark, stream_watermark(quiet.stream_url)):
                again = await client.reconnect(opened.conversation_id, watermark)
                assert again.replay == "complete", watermark
                async with client.stream(again.stream_url) as stream:
                    await stream.until_text(others[-1])
                    assert stream.texts == others
            assert rollback_warnings(landline) == warnings
            beyond = await client.activities(opened.conversation_id, lost.watermark)
            assert beyond.replay == "from-start", "what it has seen is lost; what comes again costs duplicates"
            seen = beyond.activities
            assert [each["text"] for each in seen] == [f"common {n}" for n in range(3)] + others
            assert not {each["id"] for each in seen} & {each["id"] for each in lost.activities}

    async def test_is_refused_beside_a_running_server(self, tmp_path: Path) -> None:
        async with Landline(tmp_path / "data", drain_s=0) as landline:
            assert await command("doctor", "--restored", "--data", landline.data, code=3) == ""
        assert await command("doctor", "--data", landline.data) == "Nothing is wrong.\n"

    async def test_is_not_made_of_a_store_that_lacks_a_number(self, tmp_path: Path, bot: ScriptedBot) -> None:
        data = tmp_path / "data"
        async with (
            Landline(data, bot=bot.endpoint, drain_s=0) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            opened = await started(client, bot)
            for n in range(3):
                await say(bot, opened.conversation_id, f"said {n}")
        connection = apsw.Connection(str(data / FILE))
        connection.execute("DELETE FROM entries WHERE arrival = 2")
        connection.close()
        assert f"{opened.conversation_id}: nothing stands between" in await command("doctor", "--data", data, code=1)
        assert await command("restore", data, "--data", tmp_path / "other", code=3) == ""
        assert not (tmp_path / "other").exists()


async def command(*words: object, code: int = 0) -> str:
    """What a command prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "landline", *map(str, words), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == code
    return out.decode()


def stream_watermark(url: str) -> str:
    """The position that a stream's URL names."""
    return URL(url).query["watermark"]


class TestTheLastNumber:
    @pytest.mark.item(193)
    async def test_is_refused_and_no_other_conversation_is_touched(self, tmp_path: Path, bot: ScriptedBot) -> None:
        """The head is preset in the file while the server is stopped: nobody waits for 268 million activities."""
        landline = Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0)
        async with landline, DirectLine(landline.directline, SECRET) as client:
            full, other = [(await started(client, bot)).conversation_id for _ in range(2)]
            await client.send(full, "early")
            await client.send(other, "early")
        preset_head(tmp_path / "data", full, LAST_SEQUENCE - 1)
        async with landline, DirectLine(landline.directline, SECRET) as client:
            last = await client.send(full, "the last one")
            assert last.json == {"id": f"{full}|{LAST_SEQUENCE - 1}"}
            heard = len(bot.heard(full))
            before = (await client.activities(full)).body
            for _ in range(2):
                assert (await client.send(full, "one too many")).error == (400, "BadArgument")
            refused = await bot.send(full, {"type": "message", "text": "one too many"})
            assert (refused.status, refused.json["error"]["code"]) == (400, "BadArgument")
            assert len(bot.heard(full)) == heard
            both = await asyncio.gather(client.send(full, "one too many"), client.send(other, "in the same group"))
            assert [answer.status for answer in both] == [400, 200]
            assert (await client.activities(full)).body == before
            assert [each["text"] for each in await client.all_activities(full)] == ["early", "the last one"]
            assert numbers(other, [each["id"] for each in await client.all_activities(other)]) == [0, 1]
            async with client.stream((await client.reconnect(full, "")).stream_url) as stream:
                await stream.until_text("the last one")
                assert stream.texts == ["early", "the last one"]
            await landline.restart(kill=True)
            assert (await client.send(full, "one too many")).error == (400, "BadArgument")
            assert (await client.activities(full)).body == before


class TestTheDeadline:
    """194. With a shorter one: at the default of 15 s there are 3 s left to 18 for what these have, too."""

    TIMEOUT_S = 2.0

    @pytest.mark.item(194)
    async def test_is_one_for_the_store_and_the_bot_together(self, tmp_path: Path, bot: ScriptedBot) -> None:
        """Each of the two alone would be in time."""
        async with (
            on_a_disk_that_may_hang(tmp_path, bot, self.TIMEOUT_S) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            conversation_id = (await started(client, bot)).conversation_id
            await client.send(conversation_id, "join first")
            bot.answer(delay=self.TIMEOUT_S * 0.75)
            began = time.monotonic()
            with stuck(tmp_path / HUNG):
                sending = asyncio.create_task(client.send(conversation_id, "slow"))
                await asyncio.sleep(self.TIMEOUT_S * 0.5)
                assert not sending.done()
            answer = await sending
            took = time.monotonic() - began
            assert answer.error == (502, "BotError")
            assert self.TIMEOUT_S * 0.9 < took < self.TIMEOUT_S + 3
            assert len(await client.all_activities(conversation_id)) == 2, "stored in time, so it stays"

    @pytest.mark.item(194)
    async def test_holds_for_a_store_that_does_not_come_back(self, tmp_path: Path, bot: ScriptedBot) -> None:
        """Whether an append that was under way is stored is not known then; no bot has heard of it."""
        async with (
            on_a_disk_that_may_hang(tmp_path, bot, self.TIMEOUT_S) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            conversation_id = (await started(client, bot)).conversation_id
            await client.send(conversation_id, "join first")
            heard = len(bot.heard(conversation_id))
            began = time.monotonic()
            with stuck(tmp_path / HUNG):
                answers = await asyncio.gather(*(client.send(conversation_id, f"slow {n}") for n in range(5)))
                took = time.monotonic() - began
                assert {answer.error for answer in answers} == {(503, "ServiceError")}
                assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
                assert self.TIMEOUT_S * 0.9 < took < self.TIMEOUT_S + 3
                assert (await client.activities(conversation_id)).status == 200, "reading goes on"
            assert len(bot.heard(conversation_id)) == heard
            assert (await client.send(conversation_id, "quick again")).status == 200


class TestWhatIsNotForPages:
    @pytest.mark.item(192)
    async def test_only_the_api_answers_across_origins(
        self, landline: Landline, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """Token endpoint, admin, console and metrics do not exist yet; this is about everything else."""
        url = landline.url
        service_url = bot.service_url(conversation_id)
        activities = f"{service_url}/v3/conversations/{conversation_id}/activities"
        paths = [f"{url}/", f"{url}/live", f"{url}/ready", f"{url}/nowhere", f"{url}/v3", f"{url}/v3/directlinex"]
        paths += [activities, f"{service_url}/nowhere"]
        message = {"type": "message", "text": "hello"}
        for path in paths:
            for method in ("GET", "POST", "OPTIONS"):
                answer = await bot.request(method, path, json=message, headers={"Origin": ORIGIN})
                allowing = [name for name in answer.headers if name.lower().startswith("access-control")]
                assert allowing == [], (method, path)

    @pytest.mark.item(192)
    async def test_no_answer_of_the_api_lets_its_url_leak(self, client: DirectLine, conversation_id: str) -> None:
        """Good ones, refused ones, those to a preflight, those at paths that lead nowhere. Attachments come later."""
        url = (await client.reconnect(conversation_id)).stream_url
        answers = [
            await client.generate(),
            await client.activities(conversation_id, headers={"Origin": ORIGIN}),
            await client.reconnect("unknown-conversation"),
            await client.using("nonsense").start(),
            await client.request("GET", "/nowhere", headers={"Origin": ORIGIN}),
            await client.request("OPTIONS", "/conversations", headers={"Origin": ORIGIN}),
            await client.handshake(url + "x"),
            await client.handshake(url),
        ]
        assert [answer.status for answer in answers] == [200, 200, 404, 403, 404, 204, 403, 101]
        assert all(answer.headers["Referrer-Policy"] == "no-referrer" for answer in answers)


class TestOddRequests:
    @pytest.mark.item(197)
    @pytest.mark.parametrize("second", [f"bearer {SECRET}", "Bearer nonsense", "Basic eDp5"])
    async def test_two_differing_authorization_headers_are_400_in_either_order(
        self, landline: Landline, second: str
    ) -> None:
        for credentials in ((f"Bearer {SECRET}", second), (second, f"Bearer {SECRET}")):
            head = [f"Authorization: {credential}" for credential in credentials]
            answer = await raw(landline, "POST /v3/directline/conversations", *head, "Content-Length: 0")
            assert answer.error == (400, "BadArgument"), credentials
        twice = [f"Authorization: Bearer {SECRET}"] * 2
        answer = await raw(
            landline, "POST /v3/directline/conversations", *twice, "Content-Length: 0", "Connection: close"
        )
        assert answer.status == 201, "two equal ones are one"

    @pytest.mark.item(197)
    async def test_a_hundred_header_fields_are_taken_and_one_more_is_431(self, landline: Landline) -> None:
        credential = f"Authorization: Bearer {SECRET}"
        for more, expected in ((96, 201), (97, 431)):  # beside Host, Authorization, Connection and Content-Length
            fields = [f"X-{n}: x" for n in range(more)]
            answer = await raw(
                landline,
                "POST /v3/directline/conversations",
                credential,
                "Connection: close",
                "Content-Length: 0",
                *fields,
            )
            assert answer.status == expected
        assert answer.error == (431, "BadArgument")

    @pytest.mark.item(197)
    @pytest.mark.parametrize("length_first", [True, False])
    async def test_a_length_beside_chunked_coding_is_400_and_the_end(
        self, landline: Landline, client: DirectLine, conversation_id: str, length_first: bool
    ) -> None:
        """What one side takes for the body the other takes for the next request: so a message is smuggled in."""
        body = json.dumps({"type": "message", "from": {"id": "user"}, "text": "smuggled"}).encode()
        fields = [f"Content-Length: {len(body) + 20}", "Transfer-Encoding: chunked"]
        answer = await raw(
            landline,
            f"POST /v3/directline/conversations/{conversation_id}/activities",
            f"Authorization: Bearer {SECRET}",
            *(fields if length_first else reversed(fields)),
            body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        )
        assert answer.error == (400, "BadArgument")
        assert await client.all_activities(conversation_id) == []


class TestSlowClients:
    EACH = 100
    HEADER_S = 2.0
    BODY_S = 2.0
    DEADLINE_S = 4.0
    LATE_S = 2.5
    """How late a busy machine may notice the end of such a connection."""
    SOCKET_BYTES = 64 * 1024

    @pytest.mark.item(196)
    async def test_are_gone_in_time_and_nobody_else_notices(self, tmp_path: Path, bot: ScriptedBot) -> None:
        """200 of them: heads that never end, and bodies that stop. And some whose bodies drip until the deadline."""
        async with (
            Landline(
                tmp_path / "data",
                bot=bot.endpoint,
                drain_s=0,
                header_timeout_s=self.HEADER_S,
                body_stall_s=self.BODY_S,
                bot_timeout_s=self.DEADLINE_S,
            ) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            conversation_id = (await started(client, bot)).conversation_id
            await client.send(conversation_id, "join first")
            memory, files = resident_bytes(landline.pid), open_files(landline.pid)
            heads = [asyncio.create_task(drip(landline, SLOW_HEAD, 0.5)) for _ in range(self.EACH)]
            bodies = [asyncio.create_task(drip(landline, head_of(conversation_id), 60)) for _ in range(self.EACH)]
            drips = [asyncio.create_task(drip(landline, head_of(conversation_id), 0.5)) for _ in range(5)]
            await until(lambda: open_files(landline.pid) >= files + 2 * self.EACH, "are all connected")
            assert resident_bytes(landline.pid) - memory < 2 * self.EACH * self.SOCKET_BYTES
            async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
                for n in range(30):
                    assert (await client.send(conversation_id, f"n {n}")).status == 200
                await stream.until_text("n 29")
            assert not any(each.done() for each in heads + bodies + drips), "others were served beside them"
            async with asyncio.timeout(self.DEADLINE_S + self.LATE_S):
                await asyncio.gather(*heads, *bodies, *drips)
            for slow, limit in ((heads, self.HEADER_S), (bodies, self.BODY_S), (drips, self.DEADLINE_S)):
                for end in [each.result() for each in slow]:
                    assert limit * 0.8 < end.after_s < limit + self.LATE_S, end
                    assert end.said == b"" or end.said.startswith(b"HTTP/1.1 408 "), end
            await until(lambda: open_files(landline.pid) < files + 10, "have left nothing behind")
            assert len(await client.all_activities(conversation_id)) == 31


class Raw(NamedTuple):
    """An HTTP answer read until the connection's end."""

    status: int
    body: bytes

    @property
    def error(self) -> tuple[int, str]:
        """Status and error code."""
        return self.status, json.loads(self.body)["error"]["code"]


async def raw(landline: Landline, request_line: str, *fields: str, body: bytes = b"") -> Raw:
    """Send a request as it is written here, and read until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", landline.port)
    writer.write("\r\n".join([f"{request_line} HTTP/1.1", "Host: here", *fields, "", ""]).encode() + body)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    return Raw(int(head.split(b" ")[1]), rest)


class End(NamedTuple):
    """How a connection ended: what the server said, and after how many seconds."""

    said: bytes
    after_s: float


SLOW_HEAD = b"GET /live HTTP/1.1\r\nHost: here\r\nX-Slow: "


def head_of(conversation_id: str) -> bytes:
    """A send whose body has only begun."""
    return (
        f"POST /v3/directline/conversations/{conversation_id}/activities HTTP/1.1\r\nHost: here\r\n"
        f"Authorization: Bearer {SECRET}\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n\r\n"
        f'{{"type":"message","from":{{"id":"slow"}},"text":"'
    ).encode()


async def drip(landline: Landline, beginning: bytes, every_s: float) -> End:
    """Send this at once and then a byte now and then, until the server has had enough."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", landline.port)
    writer.write(beginning)
    reading = asyncio.create_task(reader.read())
    with contextlib.suppress(ConnectionError):
        while not (await asyncio.wait((reading,), timeout=every_s))[0]:
            writer.write(b"x")
            await writer.drain()
    said = b""
    with contextlib.suppress(ConnectionError):
        said = await reading
    writer.transport.abort()
    return End(said, time.monotonic() - began)


async def welcome_newcomers(bot: ScriptedBot, activity: Activity) -> None:
    """What the usual bot does with a join."""
    if activity["type"] == "conversationUpdate":
        names = ", ".join(member["id"] for member in activity["membersAdded"])
        await say(bot, activity["conversation"]["id"], f"welcome {names}")


async def as_coroutine(call: Callable[[], None]) -> None:
    """Call it."""
    call()


def rollback_warnings(landline: Landline) -> int:
    """How many lines of the log warn of a store that may have been rolled back."""
    lines = [json.loads(line) for line in landline.log.splitlines()]
    return sum(each["level"] == "warning" and "rolled back" in each["event"] for each in lines)


def on_a_disk_that_may_hang(path: Path, bot: ScriptedBot, timeout_s: float) -> Landline:
    """It does while there is a file `HUNG`."""
    return Landline(
        path / "data",
        bot=bot.endpoint,
        program=("-m", "support.stuck_disk"),
        environment=environment(path / HUNG),
        drain_s=0,
        bot_timeout_s=timeout_s,
    )


def preset_head(data: Path, conversation_id: str, head: int) -> None:
    """Make `head` the next number of a conversation, in the file of a server that is stopped."""
    connection = apsw.Connection(str(data / FILE))
    with connection:
        connection.execute("UPDATE conversations SET head = ? WHERE id = ?", (head, conversation_id))
        assert connection.changes() == 1
    connection.close()
