from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence

import pytest
from structlog.testing import capture_logs

from landline.channel.streams import OpenStreams
from landline.core.log import ConversationId, Entry, Page, Transient
from landline.core.stream import CONVERSATION_GONE, Timing
from landline.core.watermark import Replay, Start
from landline.errors import StoreUnavailable
from landline.server.stream import StreamConnection, Streaming
from landline.wire.wheel import SLOT_S, Timer

C = ConversationId("C1")


class FakeLog:
    """The store as far as streams see it. `memory` says whether `recent` answers; `failure` is what a read raises."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.passing: list[Transient] = []
        self.memory = True
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.reads = 0

    def append(self, text: str) -> None:
        number = len(self.entries)
        self.entries.append(Entry(number, 1000 + number, b'{"type":"message","text":"%s"}' % text.encode()))

    def transient_counter(self) -> int:
        return len(self.passing)

    def read_cached(self, conversation: ConversationId, position: int, transient: int, max_bytes: int) -> Page | None:
        if not self.memory:
            return None
        if self.failure is not None:
            raise self.failure
        return self._page(position, [t for t in self.passing if t.counter > transient])

    async def read_after(
        self, conversation: ConversationId, position: int, max_activities: int, max_bytes: int, *, for_stream: bool
    ) -> Page:
        self.reads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self._page(position, [])

    def _page(self, position: int, passing: list[Transient]) -> Page:
        records: list[Entry | Transient] = [*self.entries[position : position + 2], *passing]
        end = min(position + 2, len(self.entries))
        behind_ms = self.entries[end - 1].time_ms if end > position else None
        return Page(records, end, behind_ms, len(self.passing), end < len(self.entries))


class FakeSocket:
    """Keeps what it is given; full after `room` frames, until it is drained."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.writes = 0
        self.keep_alives: list[bool] = []
        self.room = 1000
        self.closes: list[tuple[int, str]] = []
        self.aborted = False
        self.failure: Exception | None = None

    @property
    def paused(self) -> bool:
        return len(self.sent) >= self.room

    def send_texts(self, payloads: Sequence[bytes]) -> None:
        if self.failure is not None:
            raise self.failure
        self.writes += 1
        self.sent.extend(payloads)

    def keep_alive(self, ping: bool) -> None:
        self.keep_alives.append(ping)

    def progress(self) -> int:
        return len(self.sent) if self.paused else 0

    def close(self, code: int, reason: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.closes.append((code, reason))

    def abort(self) -> None:
        self.aborted = True

    @property
    def texts(self) -> list[str]:
        return [a.get("text", a["type"]) for frame in self.sent for a in json.loads(frame)["activities"]]


class FakeWheel:
    """Time that passes when the test says so."""

    slot_s = SLOT_S

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Timer]] = []

    def time(self) -> float:
        return self.now

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        self.timers.append((self.now + delay_s, timer))
        return timer

    @property
    def waiting(self) -> bool:
        """Whether anybody still waits for anything."""
        return any(timer._callback for _, timer in self.timers)

    def pass_by(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and (first := min(self.timers, key=lambda each: each[0]))[0] <= end:
            self.timers.remove(first)
            self.now, callback = first[0], first[1]._callback
            if callback is not None:
                callback()
        self.now = end

    def turn(self, turns: int = 1) -> None:
        """So many ticks of every stream."""
        self.pass_by(turns * Timing().tick_s)


class Scene:
    """One stream of one conversation, ready to be opened."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.streams = OpenStreams()
        self.wheel = FakeWheel()
        self.shared = Streaming(self.log, self.streams, Timing(), self.wheel)  # type: ignore[arg-type]
        self.socket = FakeSocket()
        self.connection: StreamConnection = self.shared.connection(C, Start(0, "0", Replay.COMPLETE), "site", "ski")

    def open(self) -> None:
        self.connection.opened(self.socket)

    def say(self, text: str) -> None:
        self.log.append(text)
        self.streams.moved(C)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds, five seconds at most."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


def test_the_backlog_is_sent_and_then_what_comes(scene: Scene) -> None:
    for text in "abc":
        scene.log.append(text)
    scene.open()
    scene.say("d")
    assert scene.socket.texts == ["a", "b", "c", "d"]


def test_a_page_leaves_in_one_write(scene: Scene) -> None:
    scene.log.append("a")
    scene.log.append("b")
    scene.open()
    assert scene.socket.writes == 1


def test_only_transients_from_now_on_are_shown(scene: Scene) -> None:
    scene.log.passing.append(Transient(1, 0, b'{"type":"typing","id":"C1|t1"}'))
    scene.open()
    scene.log.passing.append(Transient(2, 0, b'{"type":"event","id":"C1|t2"}'))
    scene.streams.moved(C)
    assert scene.socket.texts == ["event"]


async def test_what_memory_does_not_have_is_read_from_the_log(scene: Scene) -> None:
    scene.log.memory = False
    for text in "abc":
        scene.log.append(text)
    scene.open()
    await until(lambda: scene.socket.texts == ["a", "b", "c"])


async def test_a_store_failure_costs_time_and_nothing_else(scene: Scene) -> None:
    scene.log.memory, scene.log.failure = False, StoreUnavailable()
    scene.log.append("a")
    scene.open()
    await until(lambda: scene.log.reads == 1 and scene.shared.reading == 0)
    assert scene.socket.closes == []
    scene.log.failure = None
    scene.wheel.turn()
    await until(lambda: scene.socket.texts == ["a"])


def test_an_unexpected_failure_closes_with_1011_and_one_log_line(scene: Scene) -> None:
    scene.open()
    scene.log.failure = ValueError("broken")
    with capture_logs() as logs:
        scene.say("a")
    assert scene.socket.closes == [(1011, "internal-error")]
    assert [(line["event"], line["conversation"]) for line in logs] == [("stream broke", C)]
    assert len(scene.streams) == 0


async def test_an_unexpected_failure_of_a_log_read_closes_with_1011(scene: Scene) -> None:
    scene.log.memory, scene.log.failure = False, ValueError("broken")
    with capture_logs() as logs:
        scene.open()
        await until(lambda: scene.socket.closes != [])
    assert scene.socket.closes == [(1011, "internal-error")]
    assert len(logs) == 1


def test_a_socket_that_fails_does_not_harm_the_other_streams(scene: Scene) -> None:
    scene.open()
    other, healthy = scene.shared.connection(C, Start(0, "0", Replay.COMPLETE), "site", "ski"), FakeSocket()
    other.opened(healthy)
    scene.socket.failure = OSError("gone")
    with capture_logs():
        scene.say("a")
    assert healthy.texts == ["a"]
    assert len(scene.streams) == 1


def test_a_full_socket_is_left_alone_until_it_has_room(scene: Scene) -> None:
    scene.socket.room = 1
    scene.open()
    for text in "abc":
        scene.say(text)
    assert scene.socket.texts == ["a"]
    scene.socket.room = 1000
    scene.connection.resumed()
    assert scene.socket.texts == ["a", "b", "c"]


def test_a_socket_that_filled_up_by_itself_is_left_alone_too(scene: Scene) -> None:
    scene.open()
    scene.socket.room = 0
    scene.say("a")
    assert scene.socket.texts == []


@pytest.mark.item(158)
def test_a_client_that_takes_nothing_for_30_s_is_closed_as_slow(scene: Scene) -> None:
    scene.open()
    scene.wheel.pass_by(7)
    scene.socket.room = 1
    scene.say("a")
    scene.wheel.pass_by(29.9)
    assert scene.socket.closes == []
    scene.wheel.pass_by(0.2)
    assert scene.socket.closes == [(1013, "slow-consumer")]
    assert len(scene.streams) == 0
    scene.wheel.turn()
    assert not scene.wheel.waiting


def test_a_client_that_takes_more_is_given_its_time_anew_and_leaves_no_timer_behind(scene: Scene) -> None:
    scene.open()
    for text in "ab":
        scene.socket.room = len(scene.socket.sent) + 1
        scene.say(text)
        scene.wheel.pass_by(25)
        scene.socket.room = 1000
        scene.connection.resumed()
    assert scene.socket.closes == []
    scene.connection.closed(None)
    scene.wheel.turn()
    assert not scene.wheel.waiting


async def test_a_page_that_arrives_at_a_full_socket_is_not_kept(scene: Scene) -> None:
    scene.log.memory, scene.log.gate = False, asyncio.Event()
    scene.log.append("a")
    scene.open()
    await until(lambda: scene.log.reads == 1)
    scene.socket.room = 0
    scene.log.gate.set()
    await until(lambda: scene.shared.reading == 0)
    assert scene.socket.texts == []
    scene.socket.room = 1000
    scene.connection.resumed()
    await until(lambda: scene.socket.texts == ["a"])


def test_a_silent_connection_gets_a_keep_alive_and_a_silent_client_a_ping(scene: Scene) -> None:
    scene.open()
    scene.wheel.turn()
    scene.connection.heard()
    scene.wheel.turn(3)
    assert scene.socket.keep_alives == [False, True]


def test_a_dead_client_is_dropped_without_a_close_handshake(scene: Scene) -> None:
    scene.open()
    scene.wheel.turn(8)
    assert scene.socket.aborted
    assert scene.socket.closes == []
    assert len(scene.streams) == 0
    scene.wheel.turn()
    assert not scene.wheel.waiting


@pytest.mark.item(147)
def test_what_a_client_sends_is_ignored(scene: Scene) -> None:
    scene.open()
    scene.connection.text(b"x")
    scene.connection.binary(b"\x00")
    assert (scene.socket.writes, scene.socket.closes) == (0, [])


def test_a_close_from_outside_reaches_the_socket_once(scene: Scene) -> None:
    scene.open()
    scene.streams.close_conversation(C, CONVERSATION_GONE)
    scene.connection.close(CONVERSATION_GONE)
    assert scene.socket.closes == [(4404, "conversation-gone")]


def test_a_closed_stream_is_not_woken_any_more(scene: Scene) -> None:
    scene.open()
    scene.connection.closed(1000)
    scene.say("a")
    assert scene.socket.texts == []
    assert len(scene.streams) == 0
    scene.wheel.turn()
    assert not scene.wheel.waiting


async def test_a_read_that_answers_after_the_end_changes_nothing(scene: Scene) -> None:
    scene.log.memory, scene.log.gate = False, asyncio.Event()
    scene.log.append("a")
    scene.open()
    await until(lambda: scene.log.reads == 1)
    scene.connection.closed(None)
    scene.log.gate.set()
    await until(lambda: scene.shared.reading == 0)
    assert scene.socket.texts == []


async def test_reads_under_way_are_given_up_at_the_end(scene: Scene) -> None:
    scene.log.memory, scene.log.gate = False, asyncio.Event()
    scene.open()
    await until(lambda: scene.log.reads == 1)
    async with asyncio.timeout(5):
        await scene.shared.finish()
    assert len(asyncio.all_tasks()) == 1
