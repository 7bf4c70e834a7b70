"""Reconnecting (spec 5.3, 8.2.4) and the stream URL (7.1, 7.2): where a stream begins, and who may open it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from landline.config import Settings
from landline.conformance.directline import Answer, DirectLine, claims, edited, parameter
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.streams import say, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAM_URL_TTL_S = 3.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brief(tmp_path_factory: pytest.TempPathFactory, lasting_bot: ScriptedBot) -> AsyncIterator[Landline]:
    """A server whose tokens and stream URLs do not live long, and where a conversation has one stream."""
    data = tmp_path_factory.mktemp("brief") / "data"
    async with Landline(
        data,
        bot=lasting_bot.endpoint,
        drain_s=0,
        token_ttl_s=1,
        clock_leeway_s=0,
        stream_url_ttl_s=STREAM_URL_TTL_S,
        streams_per_conversation=1,
    ) as landline:
        yield landline


@pytest_asyncio.fixture(loop_scope="module")
async def mortal(brief: Landline, bot: ScriptedBot) -> AsyncIterator[DirectLine]:
    """A client of `brief`, with the secret."""
    async with DirectLine(brief.directline, SECRET) as client:
        yield client


async def texts_from(client: DirectLine, opened: Answer, last: str) -> list[object]:
    """What a stream on this answer's URL brings, up to the activity with the text `last`."""
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text(last)
        return stream.texts


async def five(bot: ScriptedBot, client: DirectLine, conversation_id: str) -> list[str]:
    """Five messages of the bot, `text 0` to `text 4`, and the watermark behind each."""
    async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
        for n in range(5):
            await say(bot, conversation_id, f"text {n}")
        await stream.until_text("text 4")
        return [each["watermark"] for each in stream.sets if each["activities"]]


TEXTS = [f"text {n}" for n in range(5)]
GARBAGE = ["garbage", "null", "undefined", "7", "-1", "1-00000000", "99-0a1b2c3d", "9" * 300]


class TestTheAnswer:
    @pytest.mark.item(128)
    async def test_has_a_new_token_that_works_and_a_stream_url(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        token = (await started(client, bot)).token
        for credential in (SECRET, token):
            who = client.using(credential)
            target = conversation_id if credential == SECRET else str(claims(token)["conv"])
            answer = await who.reconnect(target)
            assert answer.status == 200
            assert answer.json.keys() >= {"conversationId", "token", "streamUrl", "expires_in"}
            assert answer.conversation_id == target
            assert answer.json["expires_in"] == 3600
            assert answer.token not in (SECRET, token)
            assert (await client.using(answer.token).send(target, "hello")).status == 200
            assert (await client.using(answer.token).refresh()).status == 200
            assert (await client.handshake(answer.stream_url)).status == 101

    @pytest.mark.item(129)
    async def test_binds_the_token_to_the_user_of_the_start(self, client: DirectLine, bot: ScriptedBot) -> None:
        opened = await started(client, bot, user={"id": "u1", "name": "Una"})
        by_secret = await client.reconnect(opened.conversation_id)
        by_token = await client.using(opened.token).reconnect(opened.conversation_id)
        for answer in (by_secret, by_token):
            assert claims(answer.token)["user"] == "u1"

    @pytest.mark.item(129)
    async def test_binds_it_to_nobody_where_nobody_was_bound(self, client: DirectLine, conversation_id: str) -> None:
        assert "user" not in claims((await client.reconnect(conversation_id)).token)

    @pytest.mark.item(134)
    async def test_is_404_for_an_unknown_conversation(self, client: DirectLine) -> None:
        assert (await client.reconnect("unknown-conversation")).error == (404, "BadArgument")

    @pytest.mark.item(134)
    async def test_is_403_for_an_expired_token(self, mortal: DirectLine, bot: ScriptedBot) -> None:
        opened = await started(mortal, bot)
        expired = mortal.using(opened.token)
        async with asyncio.timeout(5):
            while (answer := await expired.reconnect(opened.conversation_id)).status == 200:
                await asyncio.sleep(0.1)
        assert answer.error == (403, "TokenExpired")

    async def test_calls_no_bot_and_leaves_open_streams_alone(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """5.3: the call itself opens, closes and announces nothing."""
        heard = len(bot.heard(conversation_id))
        async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
            await client.reconnect(conversation_id, "")
            await say(bot, conversation_id, "still here")
            await stream.until_text("still here")
        assert len(bot.heard(conversation_id)) == heard


class TestWhereTheStreamBegins:
    """The table of 8.2.4 (D-45), seen by what actually arrives."""

    @pytest.mark.item(130)
    async def test_without_a_watermark_only_what_comes_after_the_call(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        await five(bot, client, conversation_id)
        opened = await client.reconnect(conversation_id)
        await say(bot, conversation_id, "after the call")
        assert await texts_from(client, opened, "after the call") == ["after the call"]

    @pytest.mark.item(131)
    @pytest.mark.parametrize("watermark", ["", "-", "0"])
    async def test_with_an_empty_one_everything(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, watermark: str
    ) -> None:
        """DirectLineJS leaves it empty when its first socket died early: it must not lose the greeting."""
        await five(bot, client, conversation_id)
        opened = await client.reconnect(conversation_id, watermark)
        assert opened.replay == "complete"
        assert await texts_from(client, opened, "text 4") == TEXTS

    @pytest.mark.item(132)
    async def test_with_one_the_activity_behind_it_and_nothing_before(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        watermarks = await five(bot, client, conversation_id)
        for k, watermark in enumerate(watermarks):
            opened = await client.reconnect(conversation_id, watermark)
            assert opened.replay == "complete"
            async with client.stream(opened.stream_url) as stream:
                await say(bot, conversation_id, f"live {k}")
                await stream.until_text(f"live {k}")
                lived = [f"live {n}" for n in range(k + 1)]
                assert stream.texts == TEXTS[k + 1 :] + lived

    @pytest.mark.item(132)
    async def test_the_watermark_of_the_stream_url_and_of_get_activities_are_as_good(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        await five(bot, client, conversation_id)
        async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
            assert stream.watermark
        polled = (await client.activities(conversation_id)).watermark
        await say(bot, conversation_id, "news")
        for watermark in (stream.watermark, polled):
            opened = await client.reconnect(conversation_id, watermark)
            assert await texts_from(client, opened, "news") == ["news"]

    @pytest.mark.item(133)
    @pytest.mark.parametrize(
        "watermark", ["garbage", "null", "undefined", "7", "-1", "1-00000000", "99-0a1b2c3d", "9" * 300]
    )
    async def test_with_garbage_everything(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, watermark: str
    ) -> None:
        """An error would block a streaming DirectLineJS for 15 minutes: starting over costs repeats, not messages."""
        await five(bot, client, conversation_id)
        opened = await client.reconnect(conversation_id, watermark)
        assert (opened.status, opened.replay) == (200, "from-start")
        assert await texts_from(client, opened, "text 4") == TEXTS

    @pytest.mark.item(133)
    async def test_with_another_conversation_s_watermark_everything(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        await five(bot, client, conversation_id)
        other = (await started(client, bot)).conversation_id
        foreign = (await five(bot, client, other))[2]
        opened = await client.reconnect(conversation_id, foreign)
        assert (opened.status, opened.replay) == (200, "from-start")
        assert await texts_from(client, opened, "text 4") == TEXTS

    @pytest.mark.item(135)
    async def test_nothing_falls_between_the_call_and_the_socket(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        watermarks = await five(bot, client, conversation_id)
        opened = await client.reconnect(conversation_id, watermarks[-1])
        await say(bot, conversation_id, "between")
        await client.send(conversation_id, "between, by the client")
        async with client.stream(opened.stream_url) as stream:
            await stream.until_text("between, by the client")
            await say(bot, conversation_id, "live")
            await stream.until_text("live")
            assert stream.texts == ["between", "between, by the client", "live"]


class TestTheStreamUrl:
    @pytest.mark.item(136, 137)
    async def test_opens_until_its_time_is_up_and_not_after(self, mortal: DirectLine, bot: ScriptedBot) -> None:
        """With a life of 3 s for 60 s: at 55/60 of it 101, behind it 403. It is used twice (D-26 a)."""
        conversation_id = (await started(mortal, bot)).conversation_id
        before = time.monotonic()
        url = (await mortal.reconnect(conversation_id)).stream_url
        after = time.monotonic()
        assert (await mortal.handshake(url)).status == 101
        await asyncio.sleep(before + STREAM_URL_TTL_S * 55 / 60 - time.monotonic())
        assert (await mortal.handshake(url)).status == 101
        await asyncio.sleep(after + STREAM_URL_TTL_S + 0.05 - time.monotonic())
        assert (await mortal.handshake(url)).error == (403, "TokenExpired")

    @pytest.mark.item(136)
    async def test_lives_60_s_unless_set(self) -> None:
        assert Settings().stream_url_ttl_s == 60

    @pytest.mark.item(138)
    async def test_opened_twice_makes_two_streams_and_the_limit_closes_the_first(
        self, mortal: DirectLine, bot: ScriptedBot
    ) -> None:
        opened = await started(mortal, bot)
        async with mortal.stream(opened.stream_url) as first, mortal.stream(opened.stream_url) as second:
            assert await first.until_closed() == (4409, "collision")
            await say(bot, opened.conversation_id, "to the second")
            await second.until_text("to the second")
            assert first.activities == []

    @pytest.mark.item(139)
    async def test_needs_a_ticket_of_its_own_conversation(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        url = (await client.reconnect(conversation_id)).stream_url
        other = (await started(client, bot)).stream_url
        assert (await client.handshake(edited(url, t=None))).error == (401, "BadArgument")
        assert (await client.handshake(edited(url, t=""))).error == (401, "BadArgument")
        for t in ("garbage", parameter(other, "t"), f"{parameter(url, 't')}A", f"A{parameter(url, 't')}"):
            assert (await client.handshake(edited(url, t=t))).error == (403, "BadArgument"), t

    @pytest.mark.item(139)
    async def test_has_a_ticket_of_which_every_character_counts(self, client: DirectLine, conversation_id: str) -> None:
        url = (await client.reconnect(conversation_id)).stream_url
        t = parameter(url, "t") or ""
        assert len(t) > 20
        for place in range(0, len(t) - 1, 7):
            forged = t[:place] + ("A" if t[place] != "A" else "B") + t[place + 1 :]
            assert (await client.handshake(edited(url, t=forged))).error == (403, "BadArgument"), place

    @pytest.mark.item(140)
    async def test_takes_a_conversation_token_but_no_secret(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        opened = await started(client, bot)
        assert (await client.handshake(edited(opened.stream_url, t=opened.token))).status == 101
        assert (await client.handshake(edited(opened.stream_url, t=SECRET))).error == (403, "BadArgument")
        elsewhere = (await client.reconnect(conversation_id)).stream_url
        assert (await client.handshake(edited(elsewhere, t=opened.token))).error == (403, "BadArgument")

    @pytest.mark.item(141)
    async def test_is_read_from_where_the_client_edits_it_to(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        watermarks = await five(bot, client, conversation_id)
        url = (await client.reconnect(conversation_id, "")).stream_url
        for watermark, expected in ((watermarks[2], TEXTS[3:]), (None, TEXTS), ("nonsense", TEXTS)):
            async with client.stream(edited(url, watermark=watermark)) as stream:
                await stream.until_text("text 4")
                assert stream.texts == expected

    @pytest.mark.item(142)
    async def test_needs_no_authorization(self, client: DirectLine, conversation_id: str) -> None:
        """Nor does a wrong one harm: cookies and `Authorization` are ignored (7.1)."""
        url = (await client.reconnect(conversation_id)).stream_url
        nobody = client.using(None)
        assert (await nobody.handshake(url)).status == 101
        assert (await nobody.handshake(url, {"Authorization": "Bearer nonsense", "Cookie": "t=1"})).status == 101

    @pytest.mark.item(143)
    async def test_is_no_page_to_be_fetched(self, client: DirectLine, conversation_id: str) -> None:
        """The credential is looked at first: who has none learns nothing else."""
        url = (await client.reconnect(conversation_id)).stream_url.replace("ws", "http", 1)
        nobody = client.using(None)
        assert (await nobody.request("GET", url)).error == (400, "BadArgument")
        assert (await nobody.request("GET", edited(url, t="garbage"))).error == (403, "BadArgument")
        assert (await nobody.request("GET", edited(url, t=None))).error == (401, "BadArgument")

    async def test_of_an_unknown_conversation_is_404(self, client: DirectLine) -> None:
        """7.1. A token can be had before its conversation is started."""
        token = await client.generate()
        url = f"{client.domain}/conversations/{token.conversation_id}/stream?t={token.token}"
        assert (await client.handshake(url)).error == (404, "BadArgument")
