"""Doorbells between nodes: that a log moved, and up to where; never what was said. Transients, which are in no log,
ride along where they fit.

Theory of operation. A doorbell is rung after the commit, over a connection of its own: NOTIFY takes a lock of the whole
instance until its transaction ends, and inside the appends it would put them in a row. What moved within `ring_s` goes
out as one, so a node rings at most 200 times a second, whatever it appends.

A doorbell may be lost: the node dies before it rings, or the listener's connection breaks. So after every LISTEN, and
every `sweep_s` besides, it is asked where live conversations stand. Where nobody can listen because a pooler stands in
between, that is all there is, every `poll_s`.

A transient that is longer than a doorbell, or one of too many, is not seen on other nodes: it is best effort (D-49).
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog

from landline.core.log import ConversationId
from landline.errors import LandlineError
from landline.stores.postgres.bounds import Bounds
from landline.stores.postgres.connections import Connection, Link

CHANNEL = "landline"

FORGET = -1
"""In place of a head: what is known of the conversation is no longer right."""

RECORDS = ConversationId("")
"""In place of a conversation: a record was changed."""

_MOST_BYTES = 7900
"""PostgreSQL takes 8000."""

_MOST_WAITING = 1 << 17
"""If the database is away for long. The sweep finds what is dropped then."""

_PASSING = "t"
"""In place of a head: a transient. Its text may hold a byte that PostgreSQL's does not (`core.links`)."""

_MOST_PASSING = 256
"""Transients that wait. Each chunk of a livestream repeats what came before it, so the newest matter."""

_log = structlog.get_logger(__name__)


class Rung(NamedTuple):
    """One conversation of a doorbell, and where its log stands."""

    conversation: ConversationId
    head: int


class Doorbells:
    """Those that one node rings and hears."""

    def __init__(
        self,
        dsn: str,
        listen_dsn: str | None,
        node: str,
        bounds: Bounds,
        heard: Callable[[Sequence[Rung]], None],
        look: Callable[[], Awaitable[None]],
        pass_by: Callable[[ConversationId, bytes], None],
    ) -> None:
        """Connects to nothing yet. `heard` is told what other nodes rang, `pass_by` of their transients; `look` asks
        where everything stands. Without a `listen_dsn` nothing is heard, and it is asked all the more often."""
        self._dsn = dsn
        self._listen_dsn = listen_dsn
        self._node = node
        self._bounds = bounds
        self._hand_on = heard
        self._look = look
        self._pass_by = pass_by
        self._waiting: dict[ConversationId, int] = {}
        self._passing: deque[tuple[ConversationId, bytes]] = deque(maxlen=_MOST_PASSING)
        self._rings = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._links: list[Link] = []
        self.sent = 0
        self.received = 0
        """Doorbells that went out, and that came in from others."""

    @property
    def is_polling(self) -> bool:
        """Whether nothing can be heard."""
        return self._listen_dsn is None

    def start(self, *, is_pooled: bool) -> None:
        """Ring and listen from now on. `is_pooled`: whether a pooler stands before the database that is rung at."""
        name = f"landline/{self._node}"
        out = Link(self._dsn, f"{name}/out", self._bounds, is_pooled=is_pooled)
        self._links = [out]
        create = asyncio.get_running_loop().create_task
        self._tasks = [create(self._ring(out)), create(self._sweep())]
        if self._listen_dsn is not None:
            heard = Link(self._listen_dsn, f"{name}/listen", self._bounds, is_pooled=False)
            self._links.append(heard)
            self._tasks.append(create(self._listen(heard)))

    async def close(self) -> None:
        """Ring what waits, and let go."""
        if self._waiting and self._links and self._links[0].is_open:
            with contextlib.suppress(Exception):
                await self._send(self._links[0])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links:
            await link.close()

    # Out.

    def ring(self, conversation: ConversationId, head: int) -> None:
        """Tell the other nodes, soon."""
        if len(self._waiting) < _MOST_WAITING:
            earlier = self._waiting.get(conversation, 0)
            self._waiting[conversation] = FORGET if FORGET in (head, earlier) else max(head, earlier)
            self._rings.set()

    def pass_on(self, conversation: ConversationId, activity: bytes) -> None:
        """Show a transient to the streams of other nodes, if there is room for it."""
        if len(activity) < _MOST_BYTES // 2:
            self._passing.append((conversation, activity))
            self._rings.set()

    async def _ring(self, link: Link) -> None:
        pause_s = self._bounds.ring_s
        while True:
            await self._rings.wait()
            try:
                await self._send(link)
                pause_s = self._bounds.ring_s
            except Exception as error:  # noqa: BLE001  # the outermost loop of the task: it goes on when it can
                _log.debug("a doorbell was not rung", error=repr(error))
                pause_s = min(max(pause_s * 2, 0.02), self._bounds.again_s)
            await asyncio.sleep(pause_s)

    async def _send(self, link: Link) -> None:
        payload, rung = self._payload()
        # A transient that is lost with its doorbell is not sent again.
        await link.run(lambda connection: connection.execute("SELECT pg_notify($1, $2)", CHANNEL, payload))
        self.sent += 1
        for conversation, head in rung:
            if self._waiting.get(conversation) == head:
                del self._waiting[conversation]
        if not self._waiting and not self._passing:
            self._rings.clear()

    def _payload(self) -> tuple[str, Sequence[Rung]]:
        lines, size, rung = [self._node], len(self._node), []
        for conversation, head in self._waiting.items():
            line = f"{head} {conversation}"
            size += len(line.encode()) + 1
            if size > _MOST_BYTES:
                break
            lines.append(line)
            rung.append(Rung(conversation, head))
        while self._passing:
            conversation, activity = self._passing[0]
            line = f"{_PASSING}{binascii.b2a_base64(activity, newline=False).decode()} {conversation}"
            size += len(line.encode()) + 1
            if size > _MOST_BYTES:
                break
            lines.append(line)
            self._passing.popleft()
        return "\n".join(lines), rung

    # In.

    async def _listen(self, link: Link) -> None:
        pause_s = 0.0
        while True:
            try:
                await self._listen_until_lost(link)
                pause_s = 0.0
            except Exception as error:  # noqa: BLE001  # the outermost loop of the task: it goes on when it can
                link.drop()
                _log.info("doorbells are not heard; the sweep goes on", error=repr(error))
                pause_s = min(max(pause_s * 2, 0.02), self._bounds.again_s)
            await asyncio.sleep(pause_s)

    async def _listen_until_lost(self, link: Link) -> None:
        connection = await link.connection()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda connection: lost.set())
        await connection.add_listener(CHANNEL, self._on_notify)
        await self._look()  # what was rung before is not heard any more
        while not lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), self._bounds.sweep_s)
                break
            await link.run(_ask)  # or a server that was cut off would never be missed

    def _on_notify(self, connection: object, process: int, channel: str, payload: object) -> None:
        node, *lines = str(payload).split("\n")
        if node == self._node:
            return
        self.received += 1
        rung, passing = [], []
        for line in lines:
            head, _, conversation = line.partition(" ")
            with contextlib.suppress(ValueError):  # of a newer version
                if head.startswith(_PASSING):
                    passing.append((ConversationId(conversation), binascii.a2b_base64(head[1:])))
                else:
                    rung.append(Rung(ConversationId(conversation), int(head)))
        self._hand_on(rung)
        for name, activity in passing:
            self._pass_by(name, activity)

    async def _sweep(self) -> None:
        every_s = self._bounds.poll_s if self.is_polling else self._bounds.sweep_s
        while True:
            # Not in step with the other nodes.
            await asyncio.sleep(every_s * random.uniform(0.8, 1.1))  # noqa: S311
            try:
                await self._look()
            except LandlineError as error:
                _log.debug("live conversations could not be looked at", error=repr(error))


async def _ask(connection: Connection) -> None:
    await connection.fetchval("SELECT 1")
