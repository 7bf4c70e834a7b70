"""Drives one `core.stream` machine over one WebSocket. Carries out what the machine decides and decides nothing.

There is one small object per socket here, and its place on the timer wheel: no task, no queue, no timer of the loop.
Only a read that memory cannot answer costs a task, for as long as it lasts.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from landline.channel.streams import OpenStreams
from landline.core import links
from landline.core.log import ConversationId
from landline.core.stream import (
    INTERNAL_ERROR,
    Close,
    Decision,
    Drop,
    KeepAlive,
    Listen,
    Read,
    Send,
    Stream,
    Timing,
    Watch,
)
from landline.core.watermark import Start
from landline.errors import StoreError, UnknownConversation
from landline.ports import Store
from landline.wire.wheel import Circle, Pulse, Timer, Wheel

PAGE_BYTES = 32 * 1024
"""What one stream may hold of the log at a time, at least one activity. A client that never reads costs it."""

PAGE_ACTIVITIES = 500
"""Bounds a page of tiny activities: a frame costs more than its bytes."""

_log = structlog.get_logger(__name__)


class Socket(Protocol):
    """What a stream needs of its WebSocket."""

    @property
    def paused(self) -> bool:
        """Whether the transport has asked to stop writing."""
        ...

    def send_texts(self, payloads: Sequence[bytes]) -> None:
        """Send each payload as one unfragmented text frame, all in one write to the transport."""
        ...

    def keep_alive(self, ping: bool) -> None:
        """Send an empty text frame and, if asked, a Ping in the same write."""
        ...

    def progress(self) -> int:
        """Bytes that the transport still holds back."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Start the close handshake; a peer that does not answer it in time is cut off."""
        ...

    def abort(self) -> None:
        """Cut the connection now."""
        ...


class Streaming:
    """What the streams of one process share."""

    __slots__ = ("_reads", "_sayings", "_watches", "pulse", "store", "streams", "timing", "wheel")

    def __init__(self, store: Store, streams: OpenStreams, timing: Timing, wheel: Wheel) -> None:
        """`wheel` gives every stream its ticks, spread as their openings were."""
        self.store = store
        self.streams = streams
        self.timing = timing
        self.wheel = wheel
        self.pulse = Pulse(wheel, timing.tick_s)
        self._watches: dict[StreamConnection, Timer] = {}
        self._reads: set[asyncio.Task[None]] = set()
        self._sayings: set[asyncio.Task[None]] = set()

    def connection(
        self, conversation: ConversationId, start: Start, site: str, ski: str, base: str = ""
    ) -> StreamConnection:
        """The handler of a WebSocket whose handshake was admitted and which begins at `start`; `base` is the public
        base that it was asked for under, for links in what is sent."""
        return StreamConnection(self, self._machine(conversation, start, base), site, ski)

    def speaking_connection(
        self, conversation: ConversationId, start: Start, site: str, ski: str, base: str = "", *, say: Say
    ) -> StreamConnection:
        """The same, for a client that also sends through it (spec 7.6)."""
        return SpeakingConnection(self, self._machine(conversation, start, base), site, ski, say)

    def _machine(self, conversation: ConversationId, start: Start, base: str) -> Stream:
        now = self.wheel.time()
        return Stream(conversation, start.position, start.watermark, self.timing, now, links.json_text(base))

    def say(self, saying: Coroutine[None, None, None]) -> None:
        """Let a message of a client take its way. It does not depend on the stream it came through."""
        _keep(self._sayings, saying)

    def read(self, stream: StreamConnection, wanted: Read) -> None:
        """Read from the log what memory no longer has; `stream` goes on when it is there."""
        _keep(self._reads, stream.read_log(wanted))

    def watch(self, stream: StreamConnection, after_s: float) -> None:
        """Have `stream` look at its socket again. The few that do need a timer, which the others do not carry."""
        self._watches[stream] = self.wheel.after(after_s, stream.look_again)

    def leave_alone(self, stream: StreamConnection) -> None:
        """There is nothing to look at any more."""
        watch = self._watches.pop(stream, None)
        if watch is not None:
            watch.cancel()

    @property
    def reading(self) -> int:
        """How many streams wait for the log at this moment."""
        return len(self._reads)

    async def finish(self) -> None:
        """Give up the reads that are under way, and let what clients said come to its end; for the time when all
        streams are closed."""
        for task in self._reads:
            task.cancel()
        await asyncio.gather(*self._reads, *self._sayings, return_exceptions=True)


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)  # the loop itself holds its tasks only weakly
    task.add_done_callback(tasks.discard)


Say = Callable[[bytes], Coroutine[None, None, None]]
"""Takes one message of a client; raises nothing."""


class StreamConnection:
    """One open stream: the handler of its WebSocket, and the `OpenStream` of its conversation."""

    __slots__ = ("_beat", "_machine", "_shared", "_socket", "site", "ski")

    _socket: Socket
    _beat: Circle

    def __init__(self, shared: Streaming, machine: Stream, site: str, ski: str) -> None:
        """Drives `machine`, for a stream that was opened with the secret `ski` of `site`, or in its name."""
        self._shared = shared
        self._machine = machine
        # A ticket brings its own copies; ten thousand streams of one secret need no more than these.
        self.site = sys.intern(site)
        self.ski = sys.intern(ski)

    @property
    def conversation(self) -> ConversationId:
        """The conversation that it reads."""
        return self._machine.conversation

    # What the WebSocket reports.

    def opened(self, websocket: Socket) -> None:
        """The handshake is done."""
        self._socket = websocket
        self._beat = self._shared.pulse.join(self)
        self._follow(self._machine.opened())

    def text(self, payload: bytes) -> None:
        """Clients send through HTTP; what they send here is ignored (spec 7.4)."""

    def binary(self, payload: bytes) -> None:
        """Ignored as well."""

    def heard(self) -> None:
        """A frame of any kind arrived."""
        self._machine.heard()

    def resumed(self) -> None:
        """The transport takes more."""
        self._shared.leave_alone(self)
        self._follow(self._machine.resumed())

    def closed(self, code: int | None) -> None:
        """The connection is gone; `code` is that of the close frame, if there was one."""
        self._machine.closed()
        self._unregister()

    def tick(self, now: float) -> None:
        """The time, every `Timing.tick_s`. What a quiet server does is mostly this."""
        if self._socket.paused:
            self._check_backpressure()
        decision = self._machine.tick(now)
        if decision is not None:
            self._follow(decision)

    def look_again(self) -> None:
        """The transport has not taken more."""
        self._follow(self._machine.watched(self._socket.progress()))

    # What the node reports.

    def wake(self) -> None:
        """The log may have moved."""
        self._check_backpressure()
        self._follow(self._machine.woken())

    def close(self, why: Close) -> None:
        """End with this code and reason."""
        self._follow(self._machine.close(why))

    def abort(self) -> None:
        """End without a farewell."""
        self._machine.closed()
        self._leave(Drop())

    # Carrying out.

    def _follow(self, decision: Decision | None) -> None:
        try:
            while decision is not None:
                decision = self._carry_out(decision)
        except Exception:  # noqa: BLE001
            # The outermost edge of a stream: whoever woke it must not suffer, and nothing is lost by a close.
            _log.exception("stream broke", conversation=self.conversation)
            self._break()

    def _carry_out(self, decision: Decision) -> Decision | None:
        machine = self._machine
        if isinstance(decision, Read):
            page = self._shared.store.read_cached(
                machine.conversation, decision.position, decision.transient, max_bytes=PAGE_BYTES
            )
            if page is not None:
                return machine.page_read(page)
            self._shared.read(self, decision)
            return None
        if isinstance(decision, Send):
            self._socket.send_texts(decision.frames)
            self._check_backpressure()
            return machine.sent()
        if isinstance(decision, Listen):
            self._shared.streams.add(self)
            return machine.listening(self._shared.store.transient_counter())
        if isinstance(decision, KeepAlive):
            self._socket.keep_alive(decision.ping)
            return None
        if isinstance(decision, Watch):
            self._shared.watch(self, decision.after_s)
            return None
        self._leave(decision)
        return None

    def _check_backpressure(self) -> None:
        """Answers to a client's Pings fill a socket too, so it may be full although this stream wrote nothing."""
        if self._socket.paused:
            self._follow(self._machine.paused(self._socket.progress()))

    def _unregister(self) -> None:
        """Neither wake-ups nor ticks from now on."""
        self._shared.leave_alone(self)
        self._beat.discard(self)
        self._shared.streams.remove(self)

    def _leave(self, how: Close | Drop) -> None:
        self._unregister()
        if isinstance(how, Close):
            self._socket.close(how.code, how.reason)
        else:
            self._socket.abort()

    def _break(self) -> None:
        self._machine.closed()
        # If it was the socket that failed it may fail again; what there is to say about it has been said.
        with suppress(Exception):
            self._leave(INTERNAL_ERROR)

    async def read_log(self, wanted: Read) -> None:
        """Read one page from the log and go on with it. `Streaming.read` runs this as a task."""
        try:
            page = await self._shared.store.read_after(
                self.conversation, wanted.position, PAGE_ACTIVITIES, PAGE_BYTES, for_stream=True
            )
        except UnknownConversation:
            # Purged, perhaps on another node, which could not close the streams of this one.
            self._shared.streams.close_for_good(self.conversation)
        except StoreError:
            # Said once by the store itself; here it would be said once per stream and tick.
            self._follow(self._machine.read_failed())
        except Exception:  # noqa: BLE001
            # As in `_follow`: this task has no caller that could hear of it.
            _log.exception("stream broke", conversation=self.conversation)
            if not self._machine.over:
                self._break()
        else:
            self._check_backpressure()
            self._follow(self._machine.page_read(page))


class SpeakingConnection(StreamConnection):
    """A stream whose client sends its activities through it (spec 7.6)."""

    __slots__ = ("_say",)

    def __init__(self, shared: Streaming, machine: Stream, site: str, ski: str, say: Say) -> None:
        """`say` is given every text that is not empty, in the order in which they arrived."""
        super().__init__(shared, machine, site, ski)
        self._say = say

    def text(self, payload: bytes) -> None:
        """One activity."""
        if payload.strip():
            self._shared.say(self._say(payload))
