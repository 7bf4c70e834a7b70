"""How long conversations are kept: what counts as use, what goes by itself, and what an operator deletes (section 9).

A conversation is *purged* in one step: from then on it is unknown to everybody, and a tombstone keeps its id from ever
being started again (D-24). What it said is *cleared* afterwards, in slices so small that no append waits for long; a
crash in between is made up for by the next sweep.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from landline.channel.streams import OpenStreams
from landline.core.conversation import is_conversation_id
from landline.core.log import ConversationId
from landline.errors import LandlineError, StoreError, UnknownConversation
from landline.ports import Blobs, Clock, Store

_GRAIN_S = 3600.0
"""How exactly use is known, and how often what is too old is looked for."""

_NOTED = 65_536
"""Conversations whose last noted use is remembered. Forgetting one costs one more note."""

_AT_ONCE = 256
"""Conversations that are asked for at a time."""

_PAUSE_S = 0.02
"""Between two slices of what is removed: the writer belongs to those who have something to say."""

_PATIENCE_S = 5.0
"""How long an operator waits until what was deleted is erased, too."""

_log = structlog.get_logger(__name__)


class RetentionPolicy(msgspec.Struct, frozen=True):
    """How long things are kept, in seconds; None is for ever.

    `tombstone_s` outlives every token of a conversation that is gone (D-24, 4.4), `keys_s` is how long the key of a
    send is known (8.5).
    """

    idle_s: float | None
    activity_s: float | None
    keys_s: float
    tombstone_s: float

    @property
    def grain_s(self) -> float:
        """Short lives, as tests have them, are watched more closely."""
        return min([_GRAIN_S, *(life_s / 4 for life_s in (self.idle_s, self.activity_s) if life_s is not None)])


COUNTED = 10_000
"""More conversations of a person than these are not counted before they are deleted."""


class LastUse:
    """When conversations were last used: noted in memory at every use, and for the store at most once per grain."""

    def __init__(self, store: Store, clock: Clock, grain_s: float) -> None:
        self._store = store
        self._clock = clock
        self._grain_ms = int(grain_s * 1000)
        self._noted: OrderedDict[ConversationId, int] = OrderedDict()

    def note(self, conversation: ConversationId) -> None:
        """The conversation is being used: by a request, by a stream that opens, by its bot."""
        now_ms = self._clock.now_ms()
        if now_ms - self._noted.get(conversation, 0) >= self._grain_ms:
            self._note(conversation, now_ms)

    def left(self, conversation: ConversationId) -> None:
        """Its last stream is over, and has been a use until now."""
        self._note(conversation, self._clock.now_ms())

    def _note(self, conversation: ConversationId, now_ms: int) -> None:
        self._noted[conversation] = now_ms
        self._noted.move_to_end(conversation)
        if len(self._noted) > _NOTED:
            self._noted.popitem(last=False)
        self._store.touch(conversation, now_ms)


class Retention:
    """The use cases of forgetting."""

    def __init__(self, store: Store, blobs: Blobs, streams: OpenStreams, clock: Clock, policy: RetentionPolicy) -> None:
        self._store = store
        self._blobs = blobs
        self._streams = streams
        self._clock = clock
        self._policy = policy
        self._much_to_clear = asyncio.Event()

    # For operators

    async def delete(self, conversation: str) -> None:
        """Delete a conversation at once, whoever is using it: its streams close with 4404.

        It is gone when this returns. What it said is erased by then unless that takes long or fails; then a sweep goes
        on with it. Raises `UnknownConversation`, `StoreError`.
        """
        if not is_conversation_id(conversation) or not await self._purge(ConversationId(conversation)):
            raise UnknownConversation
        await self._clear_for_a_while([ConversationId(conversation)])

    async def forget(self, account_id: str) -> int:
        """Delete every conversation in which this person took part; answer how many. Raises `StoreError`."""
        forgotten: list[ConversationId] = []
        while theirs := await self._store.conversations_of_member(account_id, _AT_ONCE):
            forgotten += [conversation for conversation in theirs if await self._purge(conversation)]
        await self._clear_for_a_while(forgotten)
        return len(forgotten)

    async def count(self, account_id: str) -> int:
        """How many conversations `forget` would delete; no more than `COUNTED` are counted. Raises `StoreError`."""
        return len(await self._store.conversations_of_member(account_id, COUNTED))

    async def _clear_for_a_while(self, conversations: Sequence[ConversationId]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                for conversation in conversations:
                    await self._clear(conversation)
        except TimeoutError:
            self._much_to_clear.set()

    # By itself

    async def keep_sweeping(self) -> None:
        """Sweep again and again, until cancelled. Not at once: a machine that comes up may not know the time yet, and
        what is removed too early does not come back."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._policy.grain_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._much_to_clear.wait()
            self._much_to_clear.clear()
            try:
                if loop.time() >= due:
                    due = loop.time() + self._policy.grain_s
                    await self.sweep()
                else:
                    await self._clear_purged()
            except LandlineError as error:
                _log.warning("what is too old could not be removed", reason=error.message)

    async def sweep(self) -> None:
        """Remove what is too old, and what an earlier sweep, or process, did not come to. Raises `StoreError`."""
        if self._policy.idle_s is not None:
            # Another node, which sweeps too, does not know of the streams of this one.
            for conversation in {stream.conversation for stream in self._streams}:
                self._store.touch(conversation, self._clock.now_ms())
            await self._purge_idle(self._ago_ms(self._policy.idle_s + self._policy.grain_s))
        await self._clear_purged()
        if self._policy.activity_s is not None:
            await self._expire(self._ago_ms(self._policy.activity_s))
        buried_ms = self._ago_ms(self._policy.tombstone_s)
        await _in_slices(lambda: self._store.drop_tombstones(buried_ms))

    async def _clear_purged(self) -> None:
        while purged := await self._store.uncleared(_AT_ONCE):
            for conversation in purged:
                await self._clear(conversation)
            if set(purged) & set(await self._store.uncleared(_AT_ONCE)):
                break  # not now, as the log says

    def _ago_ms(self, seconds: float) -> int:
        return self._clock.now_ms() - int(seconds * 1000)

    async def _purge_idle(self, before_ms: int) -> None:
        """Purge what was last used before. That is known by the grain only, so it is added: late, never early."""
        purged = 0
        while idle := await self._store.idle_conversations(before_ms, _AT_ONCE):
            fewer = purged
            for conversation in idle:
                if self._streams.of(conversation):
                    self._store.touch(conversation, self._clock.now_ms())
                else:
                    purged += await self._purge(conversation, before_ms)
            if purged == fewer:
                break  # the rest is in use, which the store will know in a moment
        if purged:
            _log.info("idle conversations purged", conversations=purged)

    async def _purge(self, conversation: ConversationId, used_before_ms: int | None = None) -> bool:
        purged = await self._store.purge(conversation, used_before_ms)
        if purged:
            self._streams.close_for_good(conversation)
        return purged

    async def _clear(self, conversation: ConversationId) -> None:
        """Erase what a purged conversation said and sent: files first, since only the tombstone knows of them."""
        try:
            await self._blobs.forget(conversation)
            await _in_slices(lambda: self._store.clear(conversation))
        except StoreError as error:
            _log.warning("a deleted conversation is not erased yet", conversation=conversation, reason=error.message)

    async def _expire(self, before_ms: int) -> None:
        after: int | None = 0
        while after is not None:
            after = await self._store.expire(before_ms, self._ago_ms(self._policy.keys_s), after)
            await asyncio.sleep(_PAUSE_S)


async def _in_slices(remove: Callable[[], Awaitable[bool]]) -> None:
    """Remove one slice after the other, until there is no more."""
    more = await remove()
    while more:
        await asyncio.sleep(_PAUSE_S)
        more = await remove()
