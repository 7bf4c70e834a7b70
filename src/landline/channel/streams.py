"""Which streams are open on this node, and whom a wake-up, a collision or a farewell concerns. Bookkeeping only.

A node may hold a hundred thousand streams, nearly all of them alone in their conversation: one dictionary entry then
points at the stream itself, and only company makes a list.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol

from landline.core.log import ConversationId
from landline.core.stream import COLLISION, CONVERSATION_GONE, GOING_AWAY, Close

_BREATH_S = 0.1
"""How often a drain closes the next few streams."""

_GONE = 4096
"""Conversations remembered as gone: for as long as a handshake may take that was let in before."""


class OpenStream(Protocol):
    """A stream as this room sees it. No method raises; each may lead to `OpenStreams.remove` before it returns."""

    @property
    def conversation(self) -> ConversationId:
        """The conversation that it reads."""
        ...

    @property
    def site(self) -> str:
        """The site whose credential opened it."""
        ...

    @property
    def ski(self) -> str:
        """Which secret of that site (specification 4.5)."""
        ...

    def wake(self) -> None:
        """The log may have moved: look."""
        ...

    def close(self, why: Close) -> None:
        """End with this code and reason; without effect on one that has ended."""
        ...

    def abort(self) -> None:
        """End without a farewell, as when a network dies; without effect on one that has ended."""
        ...


class OpenStreams:
    """The open streams of this node, by conversation, oldest first."""

    def __init__(self, per_conversation: int = 8) -> None:
        """At most `per_conversation` streams share a conversation (specification 7.5)."""
        self._most = per_conversation
        self._open: dict[ConversationId, OpenStream | list[OpenStream]] = {}
        self._count = 0
        self._gone: OrderedDict[ConversationId, None] = OrderedDict()
        self._left: Callable[[ConversationId], None] = lambda conversation: None
        self.draining = False
        """Whether all streams are being closed, because the process is going away."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[OpenStream]:
        """All of them, as they are now: closing one on the way does no harm."""
        for conversation in list(self._open):
            yield from self.of(conversation)

    def of(self, conversation: ConversationId) -> tuple[OpenStream, ...]:
        """The streams of one conversation, oldest first."""
        there = self._open.get(conversation)
        if there is None:
            return ()
        return tuple(there) if isinstance(there, list) else (there,)

    def add(self, stream: OpenStream) -> None:
        """From now on `stream` is woken. One too many closes the oldest, never the new one: a half-open socket must not
        keep out the client that has just come back (D-40)."""
        conversation = stream.conversation
        there = self._open.setdefault(conversation, stream)
        self._count += 1
        if there is not stream:
            self._join(conversation, there, stream)
        if conversation in self._gone:
            self._close(stream, CONVERSATION_GONE)

    def _join(self, conversation: ConversationId, there: OpenStream | list[OpenStream], stream: OpenStream) -> None:
        if isinstance(there, list):
            there.append(stream)
        else:
            self._open[conversation] = [there, stream]
        self._make_room(conversation)

    def tell(self, left: Callable[[ConversationId], None]) -> None:
        """Call `left` when the last stream of a conversation is over."""
        self._left = left

    def remove(self, stream: OpenStream) -> None:
        """`stream` is over. Repeating it is harmless."""
        there = self._open.get(stream.conversation)
        if there is stream:
            del self._open[stream.conversation]
            self._left(stream.conversation)
        elif isinstance(there, list) and stream in there:
            there.remove(stream)
            if len(there) == 1:
                self._open[stream.conversation] = there[0]
        else:
            return
        self._count -= 1

    def moved(self, conversation: ConversationId) -> None:
        """Wake the streams of `conversation`; this is what `Store.listen` is given."""
        there = self._open.get(conversation)
        if isinstance(there, list):
            for stream in tuple(there):
                stream.wake()
        elif there is not None:
            there.wake()

    def close_conversation(self, conversation: ConversationId, why: Close) -> None:
        """Close every stream of `conversation`."""
        for stream in self.of(conversation):
            self._close(stream, why)

    def close_for_good(self, conversation: ConversationId) -> None:
        """The conversation is gone: close its streams with 4404, and any that was let in before and opens now."""
        self._gone[conversation] = None
        if len(self._gone) > _GONE:
            self._gone.popitem(last=False)
        self.close_conversation(conversation, CONVERSATION_GONE)

    def close_unless(self, admitted: Callable[[str, str], bool], why: Close) -> None:
        """Close every stream whose credential, a site and one of its secrets, is `admitted` no longer."""
        for stream in self:
            if not admitted(stream.site, stream.ski):
                self._close(stream, why)

    async def drain(self, drain_s: float) -> None:
        """Close all streams with 1001, spread evenly over `drain_s` seconds, so that the clients do not come back all
        at once. Streams that open meanwhile are closed too."""
        self.draining = True
        clock = asyncio.get_running_loop().time
        began = clock()
        leaving = list(self)
        gone = 0
        while gone < len(leaving):
            passed = clock() - began
            due = len(leaving) if passed >= drain_s else int(len(leaving) * passed / drain_s) + 1
            for stream in leaving[gone:due]:
                self._close(stream, GOING_AWAY)
            gone = due
            if gone < len(leaving):
                await asyncio.sleep(min(_BREATH_S, drain_s))
        for stream in self:
            self._close(stream, GOING_AWAY)

    def _make_room(self, conversation: ConversationId) -> None:
        there = self._open[conversation]
        while isinstance(there, list) and len(there) > self._most:
            self._close(self._one_too_many(there), COLLISION)
            there = self._open[conversation]

    def _one_too_many(self, there: list[OpenStream]) -> OpenStream:
        return there[0]

    def _close(self, stream: OpenStream, why: Close) -> None:
        self.remove(stream)
        stream.close(why)
