"""A whole system in one process, under a fake clock, from one seed: logs, a node, links, clients, and trouble.

Real are the machines of both ends (`core.stream`, `core.session`), the driver (`server.stream`), the bookkeeping
(`channel.streams`), the frames and the watermark table. Modelled are the store (a list), the sockets (`Link`), the HTTP
side of a reconnect (`Desk`) and the passing of time (a heap of events). There is no event loop: a read that memory
cannot answer is a coroutine which the world resumes when it likes.

Every seed first draws its own mixture of troubles, then makes trouble for two minutes, then lets things calm down, and
looks whether the promises of docs/architecture.md held on the way and in the end.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from random import Random
from typing import Any

import msgspec

from landline.channel.streams import OpenStreams
from landline.core import session as ask
from landline.core.log import Audience, ConversationId, Entry, Original, Page, Transient, activity_id
from landline.core.session import Session
from landline.core.stream import Read, Stream, Timing
from landline.core.watermark import BEGINNING, Replay, Start, Watermark, parse, start_of, watermark
from landline.errors import StoreUnavailable
from landline.server.stream import StreamConnection, Streaming
from landline.wire.wheel import SLOT_S, Timer

KEEPALIVE_S, DEAD_PEER_S, STALL_S = 20.0, 60.0, 30.0
TIMING = Timing(KEEPALIVE_S, DEAD_PEER_S, STALL_S)
TICK_S = TIMING.tick_s
TROUBLE_S = 120.0
CALM_S = 160.0
TICKET_S = 60.0
HIGH_WATER = 600
LOW_WATER = 150
SLOWEST_READ_S = 3.0
_PONG = b" " * 125  # to a session it is as empty as a keep-alive


class BrokenPromise(BaseException):
    """The system under test did what it must never do. Not an `Exception`: the driver must not swallow it."""


class Shown(msgspec.Struct):
    """What a client sees of an activity."""

    id: str
    text: str


class ActivitySet(msgspec.Struct):
    """What a frame says."""

    activities: list[Shown]
    watermark: str


_frame = msgspec.json.Decoder(ActivitySet)
_activity = msgspec.json.Decoder(Shown)


class Trouble:
    """The mixture of one seed. Each kind is absent in about half of all worlds, so that rare pairs meet undisturbed."""

    def __init__(self, rng: Random) -> None:
        def rate(most: float) -> float:
            return rng.random() * most if rng.random() < 0.5 else 0.0

        self.lost_wake = rate(0.5)
        self.late_wake = rate(0.5)
        self.double_wake = rate(0.5)
        self.forgetful = rate(0.8)
        self.failing_read = rate(0.5)
        self.silent_cut = rate(0.8)
        self.unused_url = rate(0.4)
        self.late_url = rate(0.4)
        self.failing_request = rate(0.5)
        self.old_watermark = rate(0.4)
        self.latecomers = rate(0.8)
        self.cuts = rng.randrange(12) if rng.random() < 0.8 else 0
        self.stalls = rng.randrange(8) if rng.random() < 0.5 else 0
        self.restarts = rng.randrange(3) if rng.random() < 0.5 else 0
        self.rolls_back = self.restarts > 0 and rng.random() < 0.5
        self.updates = rate(0.5)
        self.deletes = rate(0.2)
        self.transients = rate(0.5)
        self.intruders = rng.randrange(8) if rng.random() < 0.4 else 0
        self.page_bytes = rng.choice((1, 60, 150, 400))
        self.latency = rng.choice((0.01, 0.3, 2.0))
        self.token_s = rng.choice((30.0, 3600.0))


class Journal:
    """One conversation's log: what survives a restart."""

    def __init__(self, conversation: ConversationId) -> None:
        self.conversation = conversation
        self.entries: list[Entry] = []
        self.numbers: list[int] = []
        self.texts: list[str] = []
        self.hidden: set[int] = set()
        self.ever: list[tuple[str, str]] = []
        self.issued: dict[str, int] = {}
        self.before_gap_ms: dict[int, int] = {}
        """By the last number of each gap: when the last entry before it was accepted (8.1.6)."""
        self.head = 0

    @property
    def last_ms(self) -> int:
        return self.entries[-1].time_ms if self.entries else 0

    def append(self, text: str, time_ms: int, original: Original | None = None) -> None:
        body = b'{"type":"message","text":"' + text.encode() + b'"}'
        entry = Entry(self.head, max(time_ms, self.last_ms + 1), body, Audience.EVERYONE, original)
        self.issued[watermark(self.conversation, self.head + 1, entry.time_ms)] = self.head
        self.entries.append(entry)
        self.numbers.append(self.head)
        self.texts.append(text)
        self.head += 1
        self.ever.append(self._shown(len(self.entries) - 1))

    def versions(self, sequence: int) -> list[int]:
        """The entries that show the id of `sequence`."""
        return [e.sequence for e in self.entries if (e.original.sequence if e.original else e.sequence) == sequence]

    def visible_now(self, original: Original) -> bool:
        return original.sequence not in self.hidden

    def roll_back(self, count: int) -> None:
        """Lose the last entries and tell nobody (8.2.7): an older copy of the file was put back."""
        kept = max(0, len(self.entries) - count)
        for entry in self.entries[kept:]:
            del self.issued[watermark(self.conversation, entry.sequence + 1, entry.time_ms)]
            self.hidden.discard(entry.sequence)
        del self.entries[kept:], self.numbers[kept:], self.texts[kept:]
        self.head = self.numbers[-1] + 1 if self.numbers else 0

    def _shown(self, index: int) -> tuple[str, str]:
        entry = self.entries[index]
        return activity_id(self.conversation, (entry.original or entry).sequence), self.texts[index]

    def visible(self, position: int = 0) -> list[tuple[str, str]]:
        shown = (i for i, number in enumerate(self.numbers) if number >= position and number not in self.hidden)
        return [self._shown(i) for i in shown]

    def news_between(self, start: int, end: int) -> bool:
        """Whether a visible entry is numbered `start` or more, but less than `end`."""
        numbers, hidden = self.numbers, self.hidden
        return any(number not in hidden for number in numbers[bisect_left(numbers, start) : bisect_left(numbers, end)])

    def page(self, position: int, transient: int, max_bytes: int, passing: Sequence[Transient], counter: int) -> Page:
        """One page of entries, with the transients of `passing` in their places; `counter` is the process's."""
        records: list[Entry | Transient] = []
        waiting = deque(t for t in passing if t.counter > transient and t.behind >= position)
        size, behind_ms, more = 0, None, False
        for entry in self.entries[bisect_left(self.numbers, position) :]:
            if records and size + len(entry.body) > max_bytes:
                more = True
                break
            while waiting and waiting[0].behind <= entry.sequence:
                records.append(waiting.popleft())
            if entry.sequence not in self.hidden:
                records.append(entry)
                size += len(entry.body)
            position, behind_ms = entry.sequence + 1, entry.time_ms
        if more:
            passed = waiting[0].counter - 1 if waiting else counter
        else:
            records.extend(waiting)
            passed = counter
        return Page(records, position, behind_ms, max(passed, transient), more)


class _Disk:
    """Where a coroutine waits until the world resumes it."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Memory:
    """What a node's process knows beside the logs: the part of the store port that streams use."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._passing: dict[ConversationId, list[Transient]] = {c: [] for c in world.journals}
        self._reaches_to = {c: journal.head for c, journal in world.journals.items()}
        self._counter = 0

    def transient_counter(self) -> int:
        return self._counter

    def send_transient(self, conversation: ConversationId, activity: bytes) -> None:
        self._counter += 1
        behind = self._world.journals[conversation].head
        self._passing[conversation].append(Transient(self._counter, behind, activity))

    def forget(self, conversation: ConversationId) -> None:
        self._reaches_to[conversation] = self._world.journals[conversation].head

    def read_cached(self, conversation: ConversationId, position: int, transient: int, max_bytes: int) -> Page | None:
        world = self._world
        if position < self._reaches_to[conversation] or world.happens(world.trouble.forgetful):
            return None
        bound = world.trouble.page_bytes
        return world.journals[conversation].page(position, transient, bound, self._passing[conversation], self._counter)

    async def read_after(
        self, conversation: ConversationId, position: int, max_activities: int, max_bytes: int, *, for_stream: bool
    ) -> Page:
        """Answers what was there when it was asked, or when it answered: both are allowed."""
        world, counter = self._world, self._counter
        bound, journal = world.trouble.page_bytes, world.journals[conversation]
        first = journal.page(position, 0, bound, (), counter) if world.rng.random() < 0.5 else None
        await _Disk()
        return first or journal.page(position, 0, bound, (), counter)


class FakeWheel:
    """The world's time. The world itself turns the wheel, so that it can look at every link before."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.slot_s = SLOT_S

    def time(self) -> float:
        return self._world.now

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return Timer(callback)


class SimulatedStreaming(Streaming):
    """Reads take their time, and may fail."""

    def __init__(self, world: World, memory: Memory, streams: OpenStreams) -> None:
        super().__init__(memory, streams, TIMING, FakeWheel(world))  # type: ignore[arg-type]
        self.world = world

    def read(self, stream: StreamConnection, wanted: Read) -> None:
        world, reading = self.world, stream.read_log(wanted)
        reading.send(None)
        stream.link.reading = True  # type: ignore[attr-defined]
        slowest = 0.05 if world.calm else world.rng.choice((0.05, SLOWEST_READ_S))
        world.after(world.rng.random() * slowest, self._answer, stream, reading)

    def watch(self, stream: StreamConnection, after_s: float) -> None:
        self._watches[stream] = timer = Timer(stream.look_again)
        self.world.after(after_s, self._look, stream, timer)

    def _look(self, stream: StreamConnection, timer: Timer) -> None:
        if self is self.world.node.streaming and self._watches.get(stream) is timer:
            stream.look_again()

    def _answer(self, stream: StreamConnection, reading: Coroutine[Any, Any, None]) -> None:
        link = stream.link  # type: ignore[attr-defined]
        link.reading = False
        if self is not self.world.node.streaming:
            reading.close()
            return
        try:
            if self.world.happens(self.world.trouble.failing_read):
                link.excuse(TICK_S)
                self.world.happened["read failed"] += 1
                reading.throw(StoreUnavailable())
            else:
                reading.send(None)
        except StopIteration:
            pass


class SimulatedConnection(StreamConnection):
    """The real driver; only its doorbell is unreliable."""

    def __init__(self, shared: Streaming, machine: Stream, link: Link) -> None:
        super().__init__(shared, machine, "site", "ski")
        self.link = link

    def wake(self) -> None:
        world, trouble = self.link.world, self.link.world.trouble
        if world.happens(trouble.lost_wake):
            self.link.excuse(KEEPALIVE_S + TICK_S)
            return
        if world.happens(trouble.double_wake):
            super().wake()
        if world.happens(trouble.late_wake):
            self.link.excuse(TICK_S)
            world.after(world.rng.random() * TICK_S, self._wake_now)
        else:
            super().wake()

    def _wake_now(self) -> None:
        if self.link.server_side:
            super().wake()


class Node:
    """One life of the server process."""

    def __init__(self, world: World) -> None:
        self.memory = Memory(world)
        self.streams: OpenStreams = world.kinds.streams(world.limit)
        self.streaming = SimulatedStreaming(world, self.memory, self.streams)
        self.links: dict[Link, None] = {}


class Link:
    """A connection: the server's `Socket` at one end, a client (or nobody, for an intruder) at the other.

    Everything sent is checked against the log here, before it is lost or delivered.
    """

    def __init__(self, world: World, conversation: ConversationId, start: Start, client: Client | None) -> None:
        self.world = world
        self.journal = world.journals[conversation]
        self.client = client
        self.server_side = True
        self.client_side = True
        self.paused = False
        self.reading = False
        self._cursor = start.position
        self._last = start.watermark
        self._queue: deque[bytes] = deque()
        self._unsent = 0
        self._moving = False
        self._stuck_until = 0.0
        self._excused_until = 0.0
        self._spoke_at = world.now
        self._wrote_at = world.now
        self._progress_at = world.now
        self._dead_at: float | None = None
        self._code: int | None = None
        self.machine = world.kinds.stream(conversation, start.position, start.watermark, TIMING, world.now)
        self.connection = SimulatedConnection(world.node.streaming, self.machine, self)

    # The server's end.

    def send_texts(self, payloads: Sequence[bytes]) -> None:
        self._promise(not self.paused, "written although the socket asked to stop")
        self._promise(self._code is None, "written after the close")
        for payload in payloads:
            self._check(_frame.decode(payload))
            self._put(payload)
        self._spoke_at = self._wrote_at = self.world.now
        self._move()

    def keep_alive(self, ping: bool) -> None:
        self._spoke_at = self.world.now
        if ping:
            self.world.after(self.world.latency(), self._pong)

    def progress(self) -> int:
        return self._unsent

    def close(self, code: int, reason: str) -> None:
        self._promise(code in (1001, 1013, 4409), f"closed with {code} {reason}")
        self._code = code
        self.world.happened[f"closed with {code}"] += 1
        self._move()
        self.world.after(5.0, self.abort)

    def abort(self) -> None:
        if self.server_side:
            self.world.happened["dropped"] += 1
            self._server_gone()
            self.world.after(self.world.latency(), self._client_gone)

    # The wire.

    def cut(self, silently: bool) -> None:
        """Lose the connection in the middle of whatever is on it; some of it may still arrive."""
        if not (self.server_side and self.client_side):
            return
        for payload in list(self._queue)[: self.world.rng.randrange(len(self._queue) + 1)]:
            self._arrive(payload)
        self._queue.clear()
        self._client_gone()
        if silently:
            self._dead_at = self.world.now
        else:
            self.world.after(self.world.latency(), self._server_gone)

    def stall(self, seconds: float) -> None:
        """The client stops reading, but perhaps not asking whether we live: our answers fill the socket too."""
        self._stuck_until = self.world.now + seconds
        if self.world.rng.random() < 0.5:
            for _ in range(8):
                self.world.after(self.world.rng.random() * min(seconds, 5.0), self._ping)
        self.world.after(seconds, self._move)

    def _move(self) -> None:
        closing = self._code is not None and self.server_side
        if not self._moving and self._dead_at is None and (self._queue or closing):
            self._moving = True
            self.world.after(self.world.latency(), self._step)

    def _step(self) -> None:
        self._moving = False
        if self._dead_at is not None or self.world.now < self._stuck_until:
            return
        for _ in range(self.world.rng.randrange(1, 6)):
            if self._queue:
                payload = self._queue.popleft()
                self._unsent -= len(payload)
                self._progress_at = self.world.now
                self._arrive(payload)
        if not self._queue and self._code is not None:
            self._client_gone(self._code)
            self._server_gone()
        elif self.paused and self._unsent <= LOW_WATER:
            self.paused = False
            self._spoke_at = self.world.now
            if self.server_side:
                self.connection.resumed()
        self._move()

    def _ping(self) -> None:
        """The client's Ping and, by the socket's own doing, our Pong."""
        if self.client_side and self.server_side and self._dead_at is None and self._code is None:
            self._put(_PONG)
            self.connection.heard()
            self._move()

    def _put(self, payload: bytes) -> None:
        self._queue.append(payload)
        self._unsent += len(payload)
        if self._unsent > HIGH_WATER and not self.paused:
            self.paused = True
            self._progress_at = self.world.now

    def _pong(self) -> None:
        if self.client_side and self.server_side and self._dead_at is None and self.world.now >= self._stuck_until:
            self.connection.heard()

    def _arrive(self, payload: bytes) -> None:
        if self.client_side and self.client is not None:
            self.client.follow(self.client.session.frame(payload))

    def _client_gone(self, code: int | None = None) -> None:
        if self.client_side:
            self.client_side = False
            if self.client is not None:
                self.client.lost(self, code)

    def _server_gone(self) -> None:
        if self.server_side:
            self.server_side = False
            self.world.node.links.pop(self, None)
            self.connection.closed(None)

    def vanish(self) -> None:
        """The server's process died: it hears of nothing any more, the client hears of it later."""
        self.server_side = False
        self.world.after(self.world.latency(), self._client_gone)

    # What must hold.

    def excuse(self, seconds: float) -> None:
        """News may lie unread for so long: a wake-up got lost, or a read failed."""
        self._excused_until = max(self._excused_until, self.world.now + seconds)

    def look(self) -> None:
        """Check what must hold at any time; called before the timer wheel turns."""
        if self.machine.over:
            return
        now, slack = self.world.now, TICK_S + SLOWEST_READ_S + 1.0
        if self.paused:
            stuck_s = now - self._progress_at
            self._promise(stuck_s <= STALL_S * 9 / 8 + TICK_S, "a slow client is waited for without end")
            return
        self._promise(now - self._spoke_at <= KEEPALIVE_S + slack, "silent for too long")
        busy = self.reading or now <= self._excused_until
        news = self.journal.news_between(self.machine.position, self.journal.head)
        self._promise(busy or not news, "asleep beside news")
        if self._dead_at is not None:
            # As long as there is something to say nobody asks whether the client lives; then the full socket tells.
            dead_s = now - max(self._dead_at, self._wrote_at)
            self._promise(dead_s <= KEEPALIVE_S + DEAD_PEER_S + 3 * slack, "a dead peer is kept")

    def _check(self, said: ActivitySet) -> None:
        self._promise(len(said.activities) == 1, "not one activity per frame")
        shown = said.activities[0]
        if shown.text == "typing":
            self.world.happened["transient shown"] += 1
            self._promise(said.watermark == self._last, "a transient does not repeat the last watermark")
            behind = int(shown.id.rpartition("t")[2])
            early = self.journal.news_between(self._cursor, behind)
            self._promise(self._cursor <= behind and not early, "a transient in the wrong place")
        else:
            self._check_stored(shown, said.watermark)
        self._last = said.watermark

    def _check_stored(self, shown: Shown, behind: str) -> None:
        number = self.journal.issued.get(behind)
        if number is None:
            raise BrokenPromise(f"a watermark of nobody's: {behind}")
        entry_at = bisect_left(self.journal.numbers, number)
        original = self.journal.entries[entry_at].original
        if original is not None:
            self.world.happened["update shown" if self.journal.visible_now(original) else "delete shown"] += 1
        self._promise(self.journal.texts[entry_at] == shown.text, "a watermark behind another activity")
        self._promise(number >= self._cursor, f"entry {number} again or out of order")
        self._promise(not self.journal.news_between(self._cursor, number), f"an entry before {number} was skipped")
        self._cursor = number + 1

    def _promise(self, kept: bool, otherwise: str) -> None:
        if not kept:
            raise BrokenPromise(f"{otherwise} (at {self.world.now:.2f} s, {self.journal.conversation})")


class Desk:
    """The HTTP side: answers reconnects and admits handshakes. The `t` of a stream URL is the time of its issue."""

    def __init__(self, world: World) -> None:
        self._world = world

    def reconnect(self, journal: Journal, text: str | None) -> str:
        start = self.locate(journal, text, absent_means_head=True)
        self._world.happened["rolled back"] += start.rolled_back
        known = journal.issued.get(text or "")
        if known is not None and start.position != known + 1:
            raise BrokenPromise(f"{text} does not continue behind itself but at {start.position}")
        return self.url(start)

    def url(self, start: Start) -> str:
        return f"ws://node/stream?watermark={start.watermark}&t={self._world.now}"

    def handshake(self, journal: Journal, url: str) -> Start | None:
        """Where the stream begins, or None where the ticket has expired."""
        text, _, issued_at = url.partition("watermark=")[2].partition("&t=")
        if self._world.now - float(issued_at) > TICKET_S:
            self._world.happened["ticket expired"] += 1
            return None
        return self.locate(journal, text, absent_means_head=False)

    def locate(self, journal: Journal, text: str | None, *, absent_means_head: bool) -> Start:
        given = parse(text)
        behind_ms = None
        if isinstance(given, Watermark):
            at = bisect_left(journal.numbers, given.position - 1)
            if at < len(journal.numbers) and journal.numbers[at] == given.position - 1:
                behind_ms = journal.entries[at].time_ms
            else:
                behind_ms = journal.before_gap_ms.get(given.position - 1)
        return start_of(
            given,
            journal.conversation,
            head=journal.head,
            last_ms=journal.last_ms if journal.entries else None,
            oldest=0,
            behind_ms=behind_ms,
            absent_means_head=absent_means_head,
        )


class Client:
    """Drives one `Session` and notes what it delivers. A latecomer wants only what is said after it joined."""

    def __init__(self, world: World, journal: Journal) -> None:
        self.world = world
        self.journal = journal
        self.session: Session = world.kinds.session()
        self.delivered: list[tuple[str, str]] = []
        self.transients: list[str] = []
        self.held: list[str] = []
        self.joined_at = 0
        self._link: Link | None = None
        self._token_until = 0.0
        if world.happens(world.trouble.latecomers):
            world.after(world.rng.random() * TROUBLE_S, self._join_late)
        else:
            self._join(Start(0, BEGINNING, Replay.COMPLETE))

    def _join(self, start: Start) -> None:
        world = self.world
        self.joined_at = start.position
        self.held.append(start.watermark)
        self._token_until = world.now + world.trouble.token_s
        self.follow(self.session.started(world.desk.url(start), world.trouble.token_s, world.now))

    def _join_late(self) -> None:
        world = self.world
        if not world.up:
            world.after(5.0, self._join_late)
            return
        world.happened["joined late"] += 1
        self._join(world.desk.locate(self.journal, None, absent_means_head=True))

    def follow(self, decision: ask.Decision | None) -> None:
        world = self.world
        match decision:
            case None:
                pass
            case ask.Deliver(activities):
                for activity in activities:
                    self._take(_activity.decode(activity))
                self.held.append(self.session.watermark)
            case ask.Open(stream_url):
                self._open(stream_url)
            case ask.Wait(seconds):
                world.after(seconds, lambda: self.follow(self.session.waited()))
            case ask.Reconnect(watermark):
                world.after(world.latency(), self._ask, watermark)
            case ask.Refresh():
                world.after(world.latency(), self._refresh)
            case ask.NewToken():
                world.after(5.0, self._renew)
            case _:
                raise BrokenPromise(f"the session decided {decision}")

    def lost(self, link: Link, code: int | None) -> None:
        if link is self._link:
            self._link = None
            self.follow(self.session.lost(self.world.rng.random(), code))

    def _take(self, shown: Shown) -> None:
        if shown.text == "typing":
            self.transients.append(shown.id)
        else:
            self.delivered.append((shown.id, shown.text))

    def _open(self, url: str) -> None:
        world = self.world
        if world.happens(world.trouble.unused_url):
            world.after(world.latency(), self._not_opened)
        elif world.happens(world.trouble.late_url):
            world.after(world.rng.random() * 1.5 * TICKET_S, self._handshake, url)
        else:
            world.after(world.latency(), self._handshake, url)

    def _not_opened(self) -> None:
        self.follow(self.session.lost(self.world.rng.random()))

    def _handshake(self, url: str) -> None:
        start = self.world.desk.handshake(self.journal, url) if self.world.up else None
        if start is None:
            self._not_opened()
            return
        link = self._link = Link(self.world, self.journal.conversation, start, self)
        self.follow(self.session.opened())
        self.world.admit(link)

    def _ask(self, watermark: str | None) -> None:
        world, jitter = self.world, self.world.rng.random()
        if not world.up or world.happens(world.trouble.failing_request):
            self.follow(self.session.refused(jitter, world.rng.choice((None, 500, 503, 429))))
        elif world.now > self._token_until:
            world.happened["token expired"] += 1
            self.follow(self.session.refused(jitter, 403))
        else:
            if world.happens(world.trouble.old_watermark):
                watermark = world.rng.choice(self.held)  # a client that saves its watermark now and then
            url = world.desk.reconnect(self.journal, watermark)
            self._token_until = world.now + world.trouble.token_s
            self.follow(self.session.answered(url, world.trouble.token_s, world.now))

    def _refresh(self) -> None:
        world = self.world
        if not world.up or world.happens(world.trouble.failing_request):
            self.follow(self.session.refresh_failed(world.now, None))
        elif world.now > self._token_until:
            self.follow(self.session.refresh_failed(world.now, 403))
        else:
            self._token_until = world.now + world.trouble.token_s
            self.follow(self.session.refreshed(world.trouble.token_s, world.now))

    def _renew(self) -> None:
        self._token_until = self.world.now + self.world.trouble.token_s
        self.follow(self.session.renewed(self.world.trouble.token_s, self.world.now))


class Kinds(msgspec.Struct, frozen=True):
    """What the world is built from; a planted bug replaces one of these."""

    stream: type[Stream] = Stream
    session: type[Session] = Session
    streams: type[OpenStreams] = OpenStreams
    desk: type[Desk] = Desk


class World:
    """One seed's system. `run` raises `BrokenPromise`, or everything held."""

    def __init__(self, seed: int, kinds: Kinds | None = None) -> None:
        self.rng = Random(seed)
        self.kinds = kinds or Kinds()
        self.now = 0.0
        self.up = True
        self.calm = False
        self.trouble = Trouble(self.rng)
        self._order = 0
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._written = 0
        names = ["C1", "C2"][: self.rng.randrange(1, 3)]
        self.journals = {ConversationId(n): Journal(ConversationId(n)) for n in names}
        clients = self.rng.randrange(1, 4)
        self.limit = clients + self.rng.randrange(3)
        self.happened: Counter[str] = Counter()
        self.desk = self.kinds.desk(self)
        self.node = Node(self)
        self._plan()
        self.clients = [Client(self, self._journal()) for _ in range(clients)]

    # Time and chance.

    def after(self, seconds: float, happen: Callable[..., None], *arguments: Any) -> None:
        self._order += 1
        heapq.heappush(self._agenda, (self.now + seconds, self._order, happen, arguments))

    def happens(self, rate: float) -> bool:
        return rate > 0.0 and not self.calm and self.rng.random() < rate

    def latency(self) -> float:
        return self.rng.random() * self.trouble.latency

    def run(self) -> None:
        end = TROUBLE_S + CALM_S
        while self._agenda and self._agenda[0][0] <= end:
            self.now, _, happen, arguments = heapq.heappop(self._agenda)
            happen(*arguments)
        for client in self.clients:
            self._check(client)

    # What happens.

    def _plan(self) -> None:
        rng, trouble = self.rng, self.trouble
        happenings: list[tuple[int, Callable[[], None]]] = [
            (rng.randrange(5, 30), self._write),
            (trouble.cuts, self._cut),
            (trouble.stalls, self._stall),
            (trouble.restarts, self._restart),
            (trouble.intruders, self._intrude),
        ]
        for count, happen in happenings:
            for _ in range(count):
                self.after(rng.random() * TROUBLE_S, happen)
        self.after(TICK_S, self._turn)
        self.after(TROUBLE_S, self._calm_down)
        for _ in range(3):
            self.after(TROUBLE_S + rng.random() * TICK_S, self._write)

    def _journal(self) -> Journal:
        return self.rng.choice(list(self.journals.values()))

    def _write(self) -> None:
        if not self.up:
            return
        journal, memory = self._journal(), self.node.memory
        for _ in range(self.rng.choice((1, 1, 1, 2, 8))):
            self._append(journal)
            self.node.streams.moved(journal.conversation)
        if self.happens(self.trouble.transients):
            # The id is unique and tells where it belongs: a client sees both.
            self._written += 1
            memory.send_transient(
                journal.conversation, b'{"id":"%d|t%d","text":"typing"}' % (self._written, journal.head)
            )
            self.node.streams.moved(journal.conversation)
        if self.rng.random() < 0.1:
            memory.forget(journal.conversation)

    def _append(self, journal: Journal) -> None:
        self._written += 1
        text, time_ms = str(self._written), int(self.now * 1000)
        originals = [e for e in journal.entries if e.original is None and e.sequence not in journal.hidden]
        if originals and self.happens(self.trouble.deletes):
            entry = self.rng.choice(originals)
            journal.hidden.update(journal.versions(entry.sequence))
            journal.append(f"delete {text}", time_ms, Original(entry.sequence, entry.time_ms))
            self.node.memory.forget(journal.conversation)
        elif originals and self.happens(self.trouble.updates):
            entry = self.rng.choice(originals)
            if not self.trouble.rolls_back and self.rng.random() < 0.3:
                text = journal.texts[bisect_left(journal.numbers, entry.sequence)]  # back to the first wording
            journal.append(text, time_ms, Original(entry.sequence, entry.time_ms))
        else:
            journal.append(text, time_ms)

    def _cut(self) -> None:
        if self.node.links:
            self.rng.choice(list(self.node.links)).cut(self.happens(self.trouble.silent_cut))

    def _stall(self) -> None:
        links = list(self.node.links)
        if links:
            # Preferably while a read is under way: its page then finds a full socket.
            reading = [link for link in links if link.reading]
            self.rng.choice(reading or links).stall(self.rng.choice((2.0, 20.0, 90.0)))

    def _intrude(self) -> None:
        """A second socket of somebody, as DirectLineJS opens them (D-40)."""
        if self.up:
            journal = self._journal()
            start = self.desk.locate(journal, None, absent_means_head=True)
            link = Link(self, journal.conversation, start, None)
            self.admit(link)
            self.after(self.rng.random() * (TROUBLE_S - self.now), link.cut, False)

    def admit(self, link: Link) -> None:
        """Open the stream of an admitted handshake, and see that a collision closes the oldest (D-40)."""
        before = [other.link for other in self.node.streams.of(link.journal.conversation)]  # type: ignore[attr-defined]
        self.node.links[link] = None
        link.connection.opened(link)
        evicted = [other for other in before if other.machine.over]
        allowed = before[: max(0, len(before) + 1 - self.limit)]
        if link.machine.over or evicted != allowed:
            raise BrokenPromise(f"a collision closed {len(evicted)} streams, and not the oldest")

    def _restart(self) -> None:
        if not self.up:
            return
        self.up = False
        for link in list(self.node.links):
            link.vanish()
        self.node.links.clear()
        self.after(self.rng.random() * 5.0, self._come_back)

    def _come_back(self) -> None:
        for journal in self.journals.values():
            if self.trouble.rolls_back:
                journal.roll_back(self.rng.randrange(8))
            elif self.rng.random() < 0.2:
                journal.head += 1000  # a declared restore leaves a gap (8.1.6)
                if journal.entries:
                    journal.before_gap_ms[journal.head - 1] = journal.last_ms
        self.node = Node(self)
        self.up = True

    def _turn(self) -> None:
        """The timer wheel."""
        for link in list(self.node.links):
            link.look()
        for link in list(self.node.links):
            if link.server_side:
                link.connection.tick(self.now)
        for client in self.clients:
            client.follow(client.session.tick(self.now))
        self.after(TICK_S, self._turn)

    def _calm_down(self) -> None:
        self.calm = True

    # What must hold in the end.

    def _check(self, client: Client) -> None:
        expected, delivered = _without_repeats(client.journal.visible(client.joined_at)), client.delivered
        if self.trouble.rolls_back:
            kept = _contains(delivered, expected)
        elif client.journal.hidden:
            kept = _contains(delivered, expected) and _contains(client.journal.ever, delivered)
        else:
            kept = delivered == expected
        if not kept:
            raise BrokenPromise(f"delivered {delivered}, but the log says {expected}")
        if len(set(client.transients)) != len(client.transients):
            raise BrokenPromise(f"a transient arrived twice: {client.transients}")


def _without_repeats(log: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """An update that changes nothing is a repeat to every client (8.4)."""
    latest: dict[str, str] = {}
    kept = []
    for name, text in log:
        if latest.get(name) != text:
            latest[name] = text
            kept.append((name, text))
    return kept


def _contains(whole: list[tuple[str, str]], part: list[tuple[str, str]]) -> bool:
    """Whether `part` is in `whole`, in order."""
    rest = iter(whole)
    return all(item in rest for item in part)
