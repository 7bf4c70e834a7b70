"""Hostile clients, a thousand at a time: they get the answers of spec 3.5, and others do not notice them.

One run for the whole file. Two conversations go on all the time while round after round is thrown at every door of the
server. Rounds are alike in what they cost and different in what they say (`support.attacks`), the first one warms up
what a server keeps for good, and what it holds after the others must be what it held after the first. What they say
is drawn from `LANDLINE_SEED`.

The same run against a server that has all that wrong with it shows that each of these tests can fail.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from types import TracebackType

import pytest
import pytest_asyncio
from aiohttp import web

from landline.conformance.directline import Activity, Answer, ClientStream, DirectLine, parameter
from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.uploads import PIXEL, upload
from support import planted_faults
from support.attacks import DIRECT_LINE, TOKEN, UPLOAD_BYTES, Attack, Expected, Target, ask, attacks, bad, form_of
from support.bot_trust import APP_ID
from support.footprint import Footprint, given_away
from support.landline import SECRET, Landline
from support.operator import Operator, credential_of
from support.rounds import SEED, rounds
from support.storm import throw, throw_all
from support.streams import holds_other_end, say, started
from support.wires import handshake

pytestmark = pytest.mark.asyncio(loop_scope="module")

WARM_UP = 2
"""Rounds after which pools, caches and arenas have about the size that this load asks for. What is held after the last
of them is what the others must come back to."""
ROUNDS = rounds(3, 200)
"""Rounds behind those."""
TIMES = 2
"""How often a round throws each attack."""

LEAK_BYTES = 1 << 20
"""What leaks does so in every round. So the round that adds least to the memory of the process adds less than this:
half a KiB for each attack. A third of it comes by right: what the chats said meanwhile, which the tail keeps (1 KiB
a turn), and garbage in cycles, of which the collector lets some thousand objects come together."""
GROWTH_BYTES = 8 << 20
"""What all of them add, with the one or other arena that the allocator needed later than in the warm-up, and keeps."""
POOLED_THREADS = 8
"""Threads of pools that are started when they are first needed: of the event loop, and of the attachments."""

SETTINGS: dict[str, object] = {
    "drain_s": 0,
    "header_timeout_s": 4,
    "body_stall_s": 4,
    "stall_s": 2,
    "close_timeout_s": 1,
    "keepalive_s": 1,
    "dead_peer_s": 3,
    "clock_leeway_s": 0,
    "stream_url_ttl_s": 600,
    "streams_per_conversation": 32,
    "upload_bytes": UPLOAD_BYTES,
}
"""What lets go of slow ones while a test can wait for it, and no limit that is met by being many."""

SETTLED_S = 20.0
"""By then everything that waited for a slow or dead client has given up, several times over."""


class Chat:
    """Two who mind their own business: one says something, sees it come back, sees the answer, and goes on."""

    def __init__(self, client: DirectLine, opened: Answer) -> None:
        self.conversation = opened.conversation_id
        self.turns = 0
        self.client = client.using(opened.token)
        self.opened = opened
        self.stream: ClientStream
        self._over = asyncio.Event()
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Chat:
        self.stream = await self._closing.enter_async_context(self.client.stream(self.opened.stream_url))
        self._talking = asyncio.create_task(self._talk())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        await asyncio.gather(self._talking, return_exceptions=True)
        await self._closing.aclose()

    @property
    def said(self) -> list[str]:
        """What must have come on the stream, in this order."""
        return [text for n in range(self.turns) for text in (f"n {n}", f"re: n {n}")]

    async def finish(self) -> None:
        """Come to the end of the turn; fails if anything was not as it should be."""
        self._over.set()
        await self._talking

    async def _talk(self) -> None:
        while not self._over.is_set():
            answer = await self.client.send(self.conversation, f"n {self.turns}")
            assert answer.status == 200, answer
            await self.stream.until_text(f"re: n {self.turns}", 18)
            self.turns += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):  # people are not quick; and what they say is kept, which is no leak
                    await self._over.wait()


@dataclass
class Aftermath:
    """What a run left behind."""

    seed: int
    thrown: int = 0
    complaints: list[str] = field(default_factory=list)
    chats: list[Chat] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    """How many turns the chats had had after each round."""
    kept: list[list[Activity]] = field(default_factory=list)
    """What Get Activities has of each chat."""
    footprints: list[Footprint] = field(default_factory=list)
    """Before the first round, and after each."""
    secrets: dict[str, str] = field(default_factory=dict)
    log: str = ""


async def echo(bot: ScriptedBot, activity: Activity) -> web.Response | None:
    """The bot's side of a chat: its answer comes in the middle of the turn."""
    if activity.get("type") == "message" and str(activity.get("text")).startswith("n "):
        await bot.send(activity["conversation"]["id"], {"type": "message", "text": f"re: {activity['text']}"})
    return None


async def target_of(landline: Landline, client: DirectLine, bot: ScriptedBot, watched: Answer) -> Target:
    """Set up everything that is worth having."""
    opened = await started(client, bot, user={"id": "mallory"})
    page = client.using(opened.token)
    sent = await upload(page, opened.conversation_id, PIXEL, {"Content-Type": "image/png"})
    assert sent.status == 200, sent
    (activity,) = await page.all_activities(opened.conversation_id)
    attachment = activity["attachments"][0]["contentUrl"].split("/")[-2]
    async with Operator(landline) as operator:
        await operator.add_bot("other", bot.endpoint, app_id=APP_ID)
        app_secret = (await operator.done("POST", "/bots/other/app-secrets/1/rotate"))["secret"]
        other_secret = await operator.add_site("other", "other")
        brief = await operator.add_site("brief", token_ttl_s=1)
    foreign = await started(client.using(other_secret), bot)
    body = form_of(
        grant_type="client_credentials",
        client_id=APP_ID,
        client_secret=app_secret,
        scope="https://api.botframework.com/.default",
    )
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    granted = await bot.request("POST", f"{landline.url}{TOKEN}", data=body, headers=kind)
    expired = (await client.using(brief).generate()).token
    async with asyncio.timeout(10):
        while (await client.using(expired).refresh()).status != 403:
            await asyncio.sleep(0.05)
    return Target(
        port=landline.port,
        secret=SECRET,
        key=bot.service_url(opened.conversation_id).split("/")[-1],
        conversation=opened.conversation_id,
        token=opened.token,
        ticket=str(parameter(opened.stream_url, "t")),
        expired=expired,
        watched=watched.conversation_id,
        watched_token=watched.token,
        watched_ticket=str(parameter(watched.stream_url, "t")),
        other_secret=other_secret,
        other_key=bot.service_url(foreign.conversation_id).split("/")[-1],
        app_id=APP_ID,
        app_secret=app_secret,
        bot_token=granted.json["access_token"],
        foreign=foreign.conversation_id,
        foreign_token=foreign.token,
        admin=credential_of(landline.data),
        attachment=attachment,
    )


# Those that take their time


class Slow:
    """Clients that stop, or never start: what they cost must end by itself."""

    EACH = 8

    def __init__(self, at: Target, client: DirectLine, heavy: str) -> None:
        """`heavy` is a stream URL behind which more waits than any buffer holds."""
        self._at = at
        self._client = client
        self._heavy = heavy

    async def throw(self) -> list[str]:
        """All of them at once. What was wrong with how they were sent away."""
        at = self._at
        gone = (*bad(408), Expected(None))
        head = ask("GET", at.activities, credential=at.token)
        body = ask("POST", at.activities, "Content-Length: 1000", credential=at.token, body=b'{"type":')
        dead = (Expected(101, closes=1006),)
        waiting = [
            *(Attack("slow: head", head[: 10 + n], gone) for n in range(self.EACH)),
            *(Attack("slow: body", body, gone) for _ in range(self.EACH)),
            *(Attack("slow: file", body.replace(b"/activities", b"/upload"), gone) for _ in range(self.EACH)),
            *(Attack("slow: nothing", b"", gone) for _ in range(self.EACH)),
            *(Attack("slow: half-open stream", handshake(at.stream), dead) for _ in range(self.EACH)),
        ]
        complaints = await asyncio.gather(
            *(throw(at.port, each) for each in waiting), self._never_listen(), self._never_read(), self._hang_up()
        )
        return [each for each in complaints if each is not None]

    async def _never_listen(self) -> str | None:
        """Ask for everything and take nothing."""
        async with self._client.stream(self._heavy, receive_buffer=4096, pongs=False) as stream:
            stream.stop_reading()
            return await _let_go(stream.socket.get_extra_info("socket"), "stream")

    async def _never_read(self) -> str | None:
        """The same with an answer: a page of a megabyte."""
        conversation = self._heavy.split("/stream?")[0].split("/")[-1]
        path = f"{DIRECT_LINE}/conversations/{conversation}/activities"
        with socket.socket() as plug:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plug.connect(("127.0.0.1", self._at.port))
            plug.sendall(ask("GET", path, credential=self._at.secret))
            return await _let_go(plug, "answer")

    async def _hang_up(self) -> None:
        """In the middle of everything, with a reset."""
        at = self._at
        for sent in (
            b"",
            b"GET",
            handshake(at.stream),
            ask("POST", at.upload, "Content-Length: 900000", body=bytes(9)),
        ):
            for _ in range(self.EACH):
                _, writer = await asyncio.open_connection("127.0.0.1", at.port)
                writer.write(sent)
                plug: socket.socket = writer.get_extra_info("socket")
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                writer.transport.abort()


async def _let_go(plug: socket.socket, what: str) -> str | None:
    """Wait until the server has had enough."""
    end = time.monotonic() + SETTLED_S
    while holds_other_end(plug):  # among thousands of connections: a look takes its time
        if time.monotonic() > end:
            return f"slow: whoever does not read the {what} is not let go"
        await asyncio.sleep(0.5)
    return None


# The run


async def run(
    landline: Landline,
    bot: ScriptedBot,
    seed: int,
    rounds: int,
    times: int,
    *,
    with_slow: bool = True,
    settled_s: float = SETTLED_S,
) -> Aftermath:
    """Round after round, while two chats go on."""
    after = Aftermath(seed)
    bot.on_activity = echo
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(DirectLine(landline.directline, SECRET))
        for user in ("ann", "ben"):
            opened = await started(client, bot, user={"id": user})
            after.chats.append(await stack.enter_async_context(Chat(client, opened)))
        at = await target_of(landline, client, bot, after.chats[0].opened)
        after.secrets = at.secrets | {
            f"{name} of {chat.opened.json['conversationId']}": secret
            for chat in after.chats
            for name, secret in (("token", chat.opened.token), ("ticket", str(parameter(chat.opened.stream_url, "t"))))
        }
        slow = Slow(at, client, await heavy_stream(client, bot)) if with_slow else None
        after.footprints.append(Footprint.of(landline.pid, landline.data))
        for number in range(rounds):
            # Beside the loop: chats that answered no Ping meanwhile would be taken for dead.
            thrown = await asyncio.to_thread(attacks, Random(f"{seed} {number}"), at, times)
            after.thrown += len(thrown)
            after.complaints += await throw_all(at.port, thrown) if slow is None else await both(at, thrown, slow)
            after.footprints.append(await settled(landline, after.footprints[0], settled_s))
            after.turns.append(sum(chat.turns for chat in after.chats))
        for chat in after.chats:
            with contextlib.suppress(AssertionError):  # what was wrong is seen in what it left behind
                await chat.finish()
            after.kept.append(await client.all_activities(chat.conversation))
    after.log = landline.log
    return after


async def both(at: Target, thrown: list[Attack], slow: Slow) -> list[str]:
    """The quick ones and the slow ones at the same time."""
    quick, late = await asyncio.gather(throw_all(at.port, thrown), slow.throw())
    return quick + late


async def heavy_stream(client: DirectLine, bot: ScriptedBot) -> str:
    """The URL of a stream behind which three megabytes wait."""
    opened = await started(client, bot)
    for _ in range(30):
        await say(bot, opened.conversation_id, "x" * 100_000)
    return opened.stream_url


async def settled(landline: Landline, before: Footprint, settled_s: float) -> Footprint:
    """What the server holds once it has let go of what it had not before; or what it holds nevertheless."""
    end = time.monotonic() + settled_s
    while True:
        now = Footprint.of(landline.pid, landline.data)
        if not now.left_since(before) or time.monotonic() > end:
            return now
        await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aftermath(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Aftermath]:
    """Of the run against the real server."""
    data = tmp_path_factory.mktemp("hostile") / "data"
    async with ScriptedBot() as bot, Landline(data, bot=bot.endpoint, **SETTINGS) as landline:
        yield await run(landline, bot, SEED, WARM_UP + ROUNDS, TIMES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def planted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Aftermath]:
    """Of a run against a server that does everything wrong that is looked for here."""
    data = tmp_path_factory.mktemp("planted") / "data"
    program = ("-P", str(planted_faults.__file__))  # its neighbours are not to be taken for the standard library
    async with ScriptedBot() as bot, Landline(data, bot=bot.endpoint, program=program, **SETTINGS) as landline:
        yield await run(landline, bot, 1, WARM_UP + 1, 1, with_slow=False, settled_s=0.5)


# What is looked for


def answered_as_documented(after: Aftermath) -> None:
    assert not after.complaints, "\n".join([f"{len(after.complaints)} of {after.thrown}:", *after.complaints[:30]])


def undisturbed(after: Aftermath) -> None:
    """Every turn of every chat came once, in its order, on the one stream it was begun with; and none stood still."""
    for chat, kept in zip(after.chats, after.kept, strict=True):
        assert chat.stream.texts == chat.said
        assert chat.stream.close_code in (None, 1000)
        assert chat.stream.activities == kept
    assert all(later > earlier for earlier, later in pairwise([0, *after.turns])), after.turns


def memory_is_back(after: Aftermath) -> None:
    memory = [each.memory for each in after.footprints[WARM_UP:]]
    assert max(memory) - memory[0] <= GROWTH_BYTES, memory
    assert min(later - earlier for earlier, later in pairwise(memory)) <= LEAK_BYTES, memory


def nothing_is_open(after: Aftermath) -> None:
    before, *others = after.footprints
    for each in others:
        assert not each.left_since(before)
        assert each.threads <= before.threads + POOLED_THREADS


def nothing_is_left_on_disk(after: Aftermath) -> None:
    before, *others = after.footprints
    for each in others:
        assert each.lying == before.lying
    assert len([name for name in before.lying if name.startswith("blobs/")]) == 1, "the one file that was sent"


def log_gives_nothing_away(after: Aftermath) -> None:
    assert len(after.secrets) > 15
    assert len(after.log.splitlines()) > after.thrown / 2
    assert given_away(after.log, after.secrets) == {}


def nothing_unexpected_happened(after: Aftermath) -> None:
    odd = [line for line in after.log.splitlines() if json.loads(line)["level"] in ("error", "critical")]
    assert odd == []


LOOKED_FOR = (
    answered_as_documented,
    undisturbed,
    memory_is_back,
    nothing_is_open,
    nothing_is_left_on_disk,
    log_gives_nothing_away,
    nothing_unexpected_happened,
)


async def test_every_hostile_request_gets_the_answer_that_is_documented(aftermath: Aftermath) -> None:
    """Status and error object of 3.5, for each of thousands of requests of every class; and never a 5xx."""
    assert aftermath.thrown > 5000
    answered_as_documented(aftermath)


async def test_other_conversations_get_everything_once_and_in_order_meanwhile(aftermath: Aftermath) -> None:
    undisturbed(aftermath)


async def test_memory_is_back_where_it_was_when_they_are_gone(aftermath: Aftermath) -> None:
    memory_is_back(aftermath)


async def test_sockets_files_and_threads_are_let_go(aftermath: Aftermath) -> None:
    nothing_is_open(aftermath)


async def test_nothing_of_what_was_refused_is_left_on_disk(aftermath: Aftermath) -> None:
    nothing_is_left_on_disk(aftermath)


async def test_no_line_of_the_log_has_a_piece_of_a_secret(aftermath: Aftermath) -> None:
    """Not of a secret, token, ticket, key or attachment link, wherever it was put: headers, paths, queries, bodies."""
    log_gives_nothing_away(aftermath)


async def test_nothing_happens_that_nobody_has_thought_of(aftermath: Aftermath) -> None:
    nothing_unexpected_happened(aftermath)


@pytest.mark.parametrize("looked_for", LOOKED_FOR, ids=lambda each: each.__name__)
async def test_a_server_with_that_fault_is_found_out(
    planted: Aftermath, looked_for: Callable[[Aftermath], None]
) -> None:
    with pytest.raises(AssertionError):
        looked_for(planted)


@pytest.mark.parametrize(
    "line",
    [
        "token {}",
        "the end of it: {0:.20}",
        "/a/path/{}?t={}",
        "Basic {basic}",
        "%2F{percent}",
    ],
)
async def test_a_piece_of_a_secret_in_a_log_is_found(line: str) -> None:
    """In whatever dress: and a log that only speaks of one gives nothing away."""
    secret = "a-secret-that-nobody-may-see-0123456789"
    percent = "".join(f"%{byte:02X}" for byte in secret.encode())
    for user in ("", "u", "us", "user"):
        basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
        said = line.format(secret, secret, basic=basic, percent=percent)
        assert given_away(f"nothing\n{said}\nnothing", {"it": secret}) == {"it": said}
    assert given_away("a-secret-that-no", {"it": secret}) != {}
    assert given_away("a-secret-that-n", {"it": secret}) == {}
