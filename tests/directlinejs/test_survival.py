"""The published DirectLineJS through faults: whatever happens to the wire or the server, the page ends up with the log.

The pages run in jsdom with their clock 20 times as fast (`client.mjs` says why), and reach the server through a relay
that can harm every wire. After each story the page's activities, without the repeats that DirectLineJS passes on, are
exactly those of Get Activities, in order; everything acknowledged is among them; and each single socket kept what 7.3
and 8.4 promise for one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from support.directlinejs import EARLIER, SCALE, Activity, Browser, Page, PostFailed
from support.landline import SECRET, Landline, free_port
from support.real_bot import RealBot
from support.relay import Relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

RETRY = "retry"
"""What DirectLineJS says instead of an id when it does not know what became of a post."""
PACE_S = 0.02
EXPIRY_S = 5
ONLINE_THROUGHOUT = ["Uninitialized", "Connecting", "Online"]
QUICK = {
    "keepalive_s": 1,
    "dead_peer_s": 2,
    "drain_s": 1,
}
"""Short waits for dead peers and drains, as befits a page with a hurried clock."""


class Clerk:
    """What the bot does in these stories: greet, echo, and remember what the connector acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.may_greet = asyncio.Event()
        self.may_greet.set()

    async def __call__(self, bot: ScriptedBot, activity: Activity) -> None:
        conversation_id = activity["conversation"]["id"]
        if activity["type"] == "message":
            await self.say(bot, conversation_id, f"echo {activity['text']}")
        elif activity["recipient"]["id"] in [member["id"] for member in activity.get("membersAdded", [])]:
            await self.may_greet.wait()
            await self.say(bot, conversation_id, "welcome")

    async def say(self, bot: ScriptedBot, conversation_id: str, text: str) -> None:
        """Send to the conversation. What a dying server does not answer was not acknowledged."""
        with contextlib.suppress(aiohttp.ClientError):
            answer = await bot.send(conversation_id, {"type": "message", "text": text})
            if answer.status < 300:
                self.acknowledged.append(answer.json["id"])


class Stage:
    """One server, one bot, one relay and the pages of one test."""

    def __init__(self, landline: Landline, bot: ScriptedBot, clerk: Clerk, relay: Relay, browser: Browser) -> None:
        self.landline = landline
        self.bot = bot
        self.clerk = clerk
        self.relay = relay
        self._browser = browser
        self._pages: list[Page] = []
        self._posted: list[str] = []

    async def page(self, scale: float = SCALE, luck: float | None = None, version: str = "", **options: object) -> Page:
        """A page that has begun to connect, through the relay."""
        page = await self._browser.page(scale, luck, version)
        self._pages.append(page)
        return await page.start(self.relay.directline, **options)

    async def online(self, **options: object) -> Page:
        """A page with the secret whose stream is open and that has been greeted."""
        page = await self.page(secret=SECRET, **options)
        await page.until_text("welcome")
        return page

    async def post(self, page: Page, text: str) -> str:
        """Post and answer the id; `"retry"` where the outcome is unknown to the page."""
        try:
            posted = await page.post(text)
        except PostFailed:
            return RETRY
        if posted != RETRY:
            self._posted.append(posted)
        return posted

    async def say(self, page: Page, text: str) -> None:
        """Let the bot say something of its own accord."""
        assert page.conversation_id is not None
        await self.clerk.say(self.bot, page.conversation_id, text)

    async def assert_nothing_lost(self, *pages: Page, repeats: bool = False) -> None:
        """What every page has equals the log, in order, once. Without `repeats`, even DirectLineJS saw nothing twice:
        it always came back with the watermark of the last activity it had."""
        conversation_id = pages[0].conversation_id
        assert conversation_id is not None
        log = await _log(self.landline, conversation_id)
        for page in pages:
            await _assert_has(page, log, repeats=repeats)
        self.assert_acknowledged_are_in(log)

    def assert_acknowledged_are_in(self, log: list[Activity]) -> None:
        """The log has what was acknowledged to the page, in that order, and to the bot; and nothing twice."""
        ids = [each["id"] for each in log]
        assert [each for each in ids if each in self._posted] == self._posted
        assert set(self.clerk.acknowledged) <= set(ids)
        assert len({(each["from"]["id"], each["text"]) for each in log}) == len(log), "all texts were different"

    async def close(self) -> None:
        """Leave the pages."""
        for page in self._pages:
            await page.close()


async def _assert_has(page: Page, log: list[Activity], *, repeats: bool = False) -> None:
    """The page has, or soon will have, exactly what is in the log, in order."""
    await page.until(lambda page: len(page.distinct) >= len(log), f"has the {len(log)} activities of the log")
    assert page.distinct == log, f"{page}"
    assert repeats or page.activities == log, f"repeats: {page}"
    _assert_each_connection_kept_its_promise(page, log)


def _assert_each_connection_kept_its_promise(page: Page, log: list[Activity]) -> None:
    """One activity per frame (7.3), gapless, each once (8.4), a watermark on all of them."""
    for socket in page.sockets:
        if not socket.sets:
            continue
        assert all(len(each["activities"]) == 1 for each in socket.sets)
        assert all(isinstance(each["watermark"], str) and each["watermark"] for each in socket.sets)
        begin = log.index(socket.activities[0])
        assert socket.activities == log[begin : begin + len(socket.sets)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def bot_port() -> int:
    return free_port()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def landline(tmp_path_factory: pytest.TempPathFactory, bot_port: int) -> AsyncIterator[Landline]:
    data = tmp_path_factory.mktemp("survival") / "data"
    async with Landline(data, bot=f"http://127.0.0.1:{bot_port}/api/messages", **QUICK) as landline:
        yield landline


@contextlib.asynccontextmanager
async def _stage(landline: Landline, browser: Browser, bot_port: int) -> AsyncIterator[Stage]:
    clerk = Clerk()
    async with ScriptedBot(bot_port, on_activity=clerk) as bot, Relay(landline.port) as relay:
        stage = Stage(landline, bot, clerk, relay, browser)
        yield stage
        await stage.close()


@contextlib.asynccontextmanager
async def _world(directory: Path, browser: Browser, bot_port: int, **settings: object) -> AsyncIterator[Stage]:
    """A stage with a server of its own, for the stories that need other settings."""
    endpoint = f"http://127.0.0.1:{bot_port}/api/messages"
    async with (
        Landline(directory / "data", bot=endpoint, **{**QUICK, **settings}) as landline,
        _stage(landline, browser, bot_port) as stage,
    ):
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def stage(landline: Landline, browser: Browser, bot_port: int) -> AsyncIterator[Stage]:
    async with _stage(landline, browser, bot_port) as stage:
        yield stage


async def _token(landline: Landline, **parameters: object) -> str:
    async with DirectLine(landline.directline, SECRET) as client:
        return str((await client.generate(**parameters)).json["token"])


async def _log(landline: Landline, conversation_id: str) -> list[Activity]:
    """The whole conversation by Get Activities, not through the relay."""
    async with DirectLine(landline.directline, SECRET) as client:
        return await client.all_activities(conversation_id)


class TestAWholeWire:
    @pytest.mark.parametrize("credential", ["secret", "token"])
    @pytest.mark.parametrize("web_socket", [True, False], ids=["socket", "polling"])
    async def test_greets_and_echoes(self, stage: Stage, credential: str, web_socket: bool) -> None:
        value = SECRET if credential == "secret" else await _token(stage.landline)
        page = await stage.page(webSocket=web_socket, **{credential: value})
        await page.until_text("welcome")
        assert await stage.post(page, "hello") != RETRY
        await page.until_text("echo hello")
        assert page.statuses == ONLINE_THROUGHOUT
        await stage.assert_nothing_lost(page)

    async def test_a_slow_wire_changes_nothing(self, stage: Stage) -> None:
        stage.relay.delay_s = 0.05
        page = await stage.online()
        for n in range(5):
            assert await stage.post(page, f"slow {n}") != RETRY
        await stage.assert_nothing_lost(page)

    @pytest.mark.item(144)
    async def test_a_backlog_of_500_comes_out_in_order(self, stage: Stage) -> None:
        async with DirectLine(stage.landline.directline, SECRET) as client:
            conversation = (await client.start()).json
        await stage.bot.wait_for(lambda each: each.conversation_id == conversation["conversationId"])
        for n in range(500):
            await stage.clerk.say(stage.bot, conversation["conversationId"], f"page {n}")
        page = await stage.page(token=conversation["token"], conversationId=conversation["conversationId"])
        await page.until_text("page 499")
        assert [text for text in page.texts if text != "welcome"] == [f"page {n}" for n in range(500)]
        await stage.assert_nothing_lost(page)

    @pytest.mark.item(185)
    async def test_half_a_surrogate_pair_survives_the_round_trip(self, stage: Stage) -> None:
        page = await stage.online()
        assert await stage.post(page, "half \ud83d") != RETRY
        await page.until_text("echo half \ud83d")
        assert "half \ud83d" in page.texts
        await stage.assert_nothing_lost(page)


class TestACutWire:
    @pytest.mark.item(179)
    async def test_a_reset_socket_loses_nothing(self, stage: Stage) -> None:
        page = await stage.online()
        assert await stage.post(page, "before") != RETRY
        stage.relay.streams[-1].cut()
        assert await stage.post(page, "while away") != RETRY
        await stage.say(page, "from the bot, while away")
        await page.until_streaming(sockets=2)
        await stage.say(page, "after")
        await stage.assert_nothing_lost(page)
        assert page.statuses == ONLINE_THROUGHOUT
        assert page.sockets[0].close_code == 1006

    async def test_a_wire_that_falls_silent_loses_nothing(self, stage: Stage) -> None:
        """The server hears no Pong and lets go; the page learns of it only when its next send is reset."""
        page = await stage.online()
        wire = stage.relay.streams[-1]
        wire.silence()
        assert await stage.post(page, "into the dark") != RETRY
        await asyncio.wait_for(wire.server_left.wait(), 20)
        await stage.say(page, "nobody there")
        assert page.open_sockets, "the page cannot know yet"
        assert "nobody there" not in page.texts
        wire.forget()
        await page.until_streaming(sockets=2)
        await stage.assert_nothing_lost(page)
        assert page.statuses == ONLINE_THROUGHOUT

    async def test_the_greeting_survives_a_cut_during_the_first_handshake(self, stage: Stage) -> None:
        """The page has no watermark yet and asks with an empty one: everything from the beginning (8.2.4)."""
        stage.relay.on_connect = lambda link: link.cut() if link.is_stream and len(stage.relay.streams) == 1 else None
        page = await stage.online()
        assert not page.sockets[0].frames
        empty_watermark = f"GET /v3/directline/conversations/{page.conversation_id}?watermark= HTTP/1.1"
        assert empty_watermark in [link.request_line for link in stage.relay.links]
        await stage.assert_nothing_lost(page)

    async def test_the_greeting_survives_a_cut_before_the_first_activity(self, stage: Stage) -> None:
        stage.clerk.may_greet.clear()
        page = await stage.page(secret=SECRET)
        await page.until_streaming()
        stage.relay.streams[-1].cut()
        stage.clerk.may_greet.set()
        await page.until_text("welcome")
        assert not page.sockets[0].activities
        await stage.assert_nothing_lost(page)

    @pytest.mark.item(207)
    @pytest.mark.parametrize("version", ["", *EARLIER], ids=["newest", *EARLIER])
    async def test_cuts_before_the_first_activity_and_before_the_second_cost_nothing(
        self, stage: Stage, version: str
    ) -> None:
        """There is no opening frame: whoever has had nothing asks with an empty watermark, whoever has had one activity
        with the watermark behind it."""
        stage.clerk.may_greet.clear()
        page = await stage.page(secret=SECRET, version=version)
        await page.until_streaming()
        stage.relay.streams[-1].cut()
        stage.clerk.may_greet.set()
        await page.until_text("welcome")
        assert not page.sockets[0].frames
        stage.relay.streams[-1].cut()
        await stage.say(page, "second")
        await page.until_text("second")
        assert [len(each.activities) for each in page.sockets] == [0, 1, 1]
        await stage.assert_nothing_lost(page)

    async def test_a_cut_in_the_middle_of_a_frame_loses_nothing(self, stage: Stage) -> None:
        page = await stage.online()
        stage.relay.streams[-1].cut_after(40)
        await stage.say(page, "torn in the middle " + "x" * 200)
        await stage.say(page, "after the tear")
        await page.until_streaming(sockets=2)
        await stage.assert_nothing_lost(page)
        assert [each.get("text") for each in page.sockets[0].activities] == ["welcome"]
        assert page.sockets[0].close_code == 1006

    async def test_five_cuts_under_traffic_lose_nothing(self, stage: Stage) -> None:
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        dice = random.Random(seed)
        page = await stage.online()
        async with _traffic(stage, page, "word"):
            for cut in range(5):
                await page.until_streaming(sockets=cut + 1)
                await asyncio.sleep(dice.uniform(0, 0.3))  # a random moment: the traffic goes on meanwhile
                stage.relay.cut()
            await page.until_streaming(sockets=6)
        assert await stage.post(page, "calm again") != RETRY
        await stage.assert_nothing_lost(page)
        assert page.statuses == ONLINE_THROUGHOUT

    async def test_a_stream_url_that_is_never_used_costs_nothing(self, stage: Stage) -> None:
        page = await stage.online()
        stage.relay.on_connect = lambda link: link.cut() if link.is_stream else None
        stage.relay.streams[-1].cut()
        await stage.say(page, "before the first unused URL")
        await page.until(lambda page: _given_up(page) == 2, "fails to use a first stream URL")
        await stage.say(page, "between two unused URLs")
        await page.until(lambda page: _given_up(page) == 3, "fails to use a second stream URL")
        stage.relay.on_connect = lambda link: None
        await page.until_streaming(sockets=4)
        await stage.assert_nothing_lost(page)
        assert not any(each.opened for each in page.sockets[1:3])
        assert len({each.url for each in page.sockets}) == len(page.sockets)

    async def test_a_second_socket_does_not_wait_for_a_half_dead_first(
        self, browser: Browser, tmp_path: Path, bot_port: int
    ) -> None:
        async with _world(tmp_path, browser, bot_port, dead_peer_s=60) as stage:
            first = await stage.page(token=await _token(stage.landline))
            await first.until_text("welcome")
            wire = stage.relay.streams[-1]
            wire.silence()
            second = await stage.page(token=first.token, conversationId=first.conversation_id)
            await second.until_streaming()
            assert await stage.post(second, "from the second") != RETRY
            await second.until_text("echo from the second")
            assert first.open_sockets
            assert not wire.server_left.is_set()
            assert "from the second" not in first.texts
            wire.forget()
            await first.until_text("echo from the second")
            await stage.say(first, "to both")
            await stage.assert_nothing_lost(first, second)
            assert second.sockets[0].open

    async def test_a_server_out_of_reach_is_found_again(self, stage: Stage) -> None:
        """Refused at page load, and refused again in mid-conversation: both are retried, neither is final (3.6)."""
        stage.relay.refuse()
        page = await stage.page(secret=SECRET)
        await page.until(lambda page: page.console, "is refused")
        await stage.relay.accept()
        await page.until_text("welcome")
        stage.relay.refuse()
        stage.relay.cut()
        refusals = len(page.console)
        await stage.say(page, "out of reach")
        await page.until(lambda page: len(page.console) > refusals, "is refused again")
        await stage.relay.accept()
        await stage.assert_nothing_lost(page)
        assert page.statuses == ONLINE_THROUGHOUT


def _given_up(page: Page) -> int:
    return sum(each.close_code is not None for each in page.sockets)


@contextlib.asynccontextmanager
async def _traffic(stage: Stage, page: Page, name: str) -> AsyncIterator[None]:
    """Posts one after the other, each with its echo, and words of the bot's own between them, until the block ends."""
    over = asyncio.Event()

    async def talk() -> None:
        for n in itertools.count():
            if over.is_set():
                return
            await stage.post(page, f"{name} {n}")
            await stage.say(page, f"{name}, after {n}")
            await asyncio.sleep(PACE_S)

    talking = asyncio.create_task(talk())
    try:
        yield
    finally:
        over.set()
        await talking


class TestARestartedServer:
    @pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "SIGKILL"])
    async def test_nothing_acknowledged_is_lost(self, stage: Stage, kill: bool) -> None:
        page = await stage.online()
        async with _traffic(stage, page, "word"):
            await page.until_text("word, after 5")
            await stage.landline.restart(kill=kill)
            await page.until_streaming(sockets=2)
        assert await stage.post(page, "calm again") != RETRY
        await stage.assert_nothing_lost(page)
        assert page.statuses == ONLINE_THROUGHOUT
        assert page.sockets[0].close_code == (1006 if kill else 1001)

    @pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "SIGKILL"])
    @pytest.mark.parametrize("web_socket", [True, False], ids=["socket", "polling"])
    async def test_a_reloaded_page_goes_on_behind_its_watermark(
        self, stage: Stage, kill: bool, web_socket: bool
    ) -> None:
        """A poll that meets a closed port ends DirectLineJS's polling for good (3.6), so there the page is reloaded."""
        first = await stage.page(token=await _token(stage.landline), webSocket=web_socket)
        await first.until_text("welcome")
        assert await stage.post(first, "before") != RETRY
        await first.until_text("echo before")
        seen = await _log(stage.landline, str(first.conversation_id))
        await stage.landline.restart(kill=kill)
        await stage.say(first, "after the restart")
        await first.close()
        second = await stage.page(
            token=first.token, conversationId=first.conversation_id, watermark=first.watermark, webSocket=web_socket
        )
        await second.until_text("after the restart")
        assert await stage.post(second, "again") != RETRY
        await second.until_text("echo again")
        log = await _log(stage.landline, str(first.conversation_id))
        assert first.activities == seen
        assert second.activities == log[len(seen) :]
        stage.assert_acknowledged_are_in(log)

    async def test_a_bot_on_the_real_sdk_is_heard_again(self, browser: Browser, tmp_path: Path) -> None:
        """Answers, and words of its own by a saved conversation reference, also those said while the page was away."""
        async with (
            RealBot(tmp_path) as bot,
            Landline(tmp_path / "data", bot=bot.endpoint, **QUICK) as landline,
            Relay(landline.port) as relay,
        ):
            page = await browser.page()
            await page.start(relay.directline, token=await _token(landline, user={"id": "user"}))
            await page.until_text("hello user")
            assert await page.post("before") != RETRY
            await page.until_text("echo: before")
            await landline.restart(kill=True)
            await bot.speak(str(page.conversation_id), "while you were away")
            await page.until_text("while you were away")
            assert await page.post("after") != RETRY
            await page.until_text("echo: after")
            await bot.restart(kill=True)
            await bot.speak(str(page.conversation_id), "from a bot that was restarted itself")
            await page.until_text("from a bot that was restarted itself")
            await _assert_has(page, await _log(landline, str(page.conversation_id)))
            assert page.texts == [
                "hello user",
                "before",
                "echo: before",
                "while you were away",
                "after",
                "echo: after",
                "from a bot that was restarted itself",
            ]
            await page.close()


class TestPolling:
    @pytest.mark.item(180)
    async def test_five_minutes_with_a_bot_that_fails_now_and_then(
        self, browser: Browser, tmp_path: Path, bot_port: int
    ) -> None:
        """The bot rejects, breaks off, hangs and is away in turn; every failure is a 502 for the post and none for a
        poll, so polling goes on, and what was posted stays in the log (8.6)."""
        async with _world(tmp_path, browser, bot_port, bot_timeout_s=1) as stage:
            page = await stage.online(webSocket=False)
            over = asyncio.get_running_loop().time() + 300 / page.scale
            for n, how in enumerate(itertools.cycle(["rejects", "breaks off", "hangs", "is away"])):
                async with _failing(stage.bot, how):
                    assert await stage.post(page, f"{n}, to a bot that {how}") == RETRY
                assert await stage.post(page, f"{n}, to a bot that is well") != RETRY
                await page.until_text(f"echo {n}, to a bot that is well")
                if asyncio.get_running_loop().time() > over:
                    break
            await stage.assert_nothing_lost(page)
            assert page.statuses == ONLINE_THROUGHOUT
            assert page.stopped is None


@contextlib.asynccontextmanager
async def _failing(bot: ScriptedBot, how: str) -> AsyncIterator[None]:
    """A bot that fails in the given way until the block ends."""
    match how:
        case "rejects":
            bot.answer(500, "no")
        case "breaks off":
            bot.break_connections()
        case "hangs":
            bot.hang()
        case "is away":
            await bot.refuse()
    yield
    bot.answer()
    bot.release()
    await bot.accept()


class TestTokens:
    @pytest.mark.item(187)
    @pytest.mark.parametrize("stream_url_ttl_s", [60, 1], ids=["old-url-lives", "old-url-expired"])
    async def test_an_expired_page_that_is_given_a_new_token_recovers_and_falls_quiet(
        self, browser: Browser, tmp_path: Path, bot_port: int, stream_url_ttl_s: int
    ) -> None:
        """DirectLineJS answers the 403 of a post with two more sockets on its old stream URL (3.6). Once it has its
        new token, all of that comes to rest. The page's waits are 9 s of its time: one that ends before its backend has
        answered repeats the old token until DirectLineJS gives up, whatever a server does."""
        settings = {"token_ttl_s": EXPIRY_S, "clock_leeway_s": 0, "stream_url_ttl_s": stream_url_ttl_s}
        async with _world(tmp_path, browser, bot_port, **settings) as stage:
            page = await stage.page(scale=60, luck=0.5, token=await _token(stage.landline))
            await page.until_text("welcome")
            await _until_expired(stage, page)
            assert await stage.post(page, "with an expired token") == RETRY
            await page.until(lambda page: "ExpiredToken" in page.statuses, "learns of it")
            await stage.say(page, "meanwhile")
            await asyncio.sleep(5 / page.scale)  # the page's backend takes its time
            await _give_new_token(stage, page)
            await page.until(lambda page: page.status == "Online", "is online again")
            await asyncio.sleep(40 / page.scale)  # its longest wait, 15 s, and a retry after 20 s
            settled = len(stage.relay.streams)
            await asyncio.sleep(60 / page.scale)
            assert len(stage.relay.streams) == settled > 1, f"no handshake once settled: {page}"
            assert page.status == "Online"
            assert await stage.post(page, "with the new token") != RETRY
            await stage.assert_nothing_lost(page, repeats=True)

    async def test_an_expired_polling_page_that_is_given_a_new_token_goes_on(
        self, browser: Browser, tmp_path: Path, bot_port: int
    ) -> None:
        async with _world(tmp_path, browser, bot_port, token_ttl_s=EXPIRY_S, clock_leeway_s=0) as stage:
            page = await stage.page(token=await _token(stage.landline), webSocket=False)
            await page.until(lambda page: page.status == "ExpiredToken", "meets the end of its token")
            await stage.say(page, "meanwhile")
            await _give_new_token(stage, page)
            await page.until_text("meanwhile")
            assert await stage.post(page, "with the new token") != RETRY
            await page.until_text("echo with the new token")
            await stage.assert_nothing_lost(page, repeats=True)

    @pytest.mark.item(182)
    async def test_a_token_that_is_refreshed_three_lives_long_never_interrupts(
        self, browser: Browser, tmp_path: Path, bot_port: int
    ) -> None:
        """Refreshed every 15 min of the page's time, which is a quarter of a life here as with the default settings."""
        life_s = 4
        async with _world(tmp_path, browser, bot_port, token_ttl_s=life_s, clock_leeway_s=0) as stage:
            page = await stage.page(scale=4 * 15 * 60 / life_s, token=await _token(stage.landline))
            await page.until_text("welcome")
            began = asyncio.get_running_loop().time()
            for life in range(3):
                for n in itertools.count():
                    assert await stage.post(page, f"life {life}, word {n}") != RETRY
                    await asyncio.sleep(life_s / 10)
                    if asyncio.get_running_loop().time() > began + (life + 1) * life_s:
                        break
                if life == 1:
                    sockets = len(page.sockets)
                    stage.relay.streams[-1].cut()
                    await page.until_streaming(sockets=sockets + 1)
            assert page.statuses == ONLINE_THROUGHOUT
            refreshes = [
                link for link in stage.relay.links if link.request_line.startswith("POST /v3/directline/tokens/")
            ]
            assert len(refreshes) >= 9
            await stage.assert_nothing_lost(page)


async def _until_expired(stage: Stage, page: Page) -> None:
    """Wait until the server does not take the page's token any more."""
    assert page.token is not None
    async with DirectLine(stage.landline.directline, page.token) as client, asyncio.timeout(3 * EXPIRY_S):
        while (await client.activities(page.conversation_id)).status == 200:
            await asyncio.sleep(0.1)


async def _give_new_token(stage: Stage, page: Page) -> None:
    """What a page's backend does: reconnect with the secret, and hand token and stream URL to the page."""
    async with DirectLine(stage.relay.directline, SECRET) as client:
        answer = await client.reconnect(page.conversation_id, watermark=page.watermark)
    await page.reconnect(answer.json)
