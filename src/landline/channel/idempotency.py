"""Sends that are sent twice: what makes them one (specification 8.5, D-22; bot-side 1, fact 2).

What was stored under which key, the store knows, across restarts. Here is known only what is under way in this process,
so that a repeat which overtakes its first send waits for it instead of calling the bot beside it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import NamedTuple

from landline.core.log import ConversationId, SendKey
from landline.errors import BadArgument, Conflict, LandlineError, OutcomeUnknown
from landline.ports import Clock

_KEY = re.compile(r"[!-~]{1,128}", re.ASCII)
_DIGEST_BYTES = 16


class _First(NamedTuple):
    digest: bytes
    answer: asyncio.Future[str]


class Repeats:
    """Makes keys of what senders write, and joins repeats with what is under way."""

    def __init__(self, clock: Clock, ttl_s: float) -> None:
        """A key is known for `ttl_s` after the send that brought it first."""
        self._clock = clock
        self._ttl_ms = max(1, int(ttl_s * 1000))
        self._under_way: dict[tuple[ConversationId, str, str], _First] = {}

    @property
    def since_ms(self) -> int:
        """What was sent before is forgotten."""
        return self._clock.now_ms() - self._ttl_ms

    @property
    def spans(self) -> tuple[int, int]:
        """The present one of the spans of `ttl_s` into which time is cut, behind the one before: what was sent no
        longer ago was sent in one of the two."""
        present = self._clock.now_ms() // self._ttl_ms
        return present - 1, present

    def key(self, sender: str, key: str, *sent: bytes) -> SendKey:
        """The key of a send. `sent` is all that makes it another one: the bytes of the request, what its path says."""
        digest = sha256()
        for part in sent:
            digest.update(b"%d|%b" % (len(part), part))
        return SendKey(sender, key, digest.digest()[:_DIGEST_BYTES], self.since_ms)

    async def once(self, conversation: ConversationId, key: SendKey, send: Callable[[], Awaitable[str]]) -> str:
        """What `send` answers; if the same is under way, what that comes to. Raises `Conflict` if something else is."""
        name = (conversation, key.sender, key.key)
        first = self._under_way.get(name)
        if first is not None:
            if first.digest != key.digest:
                raise Conflict
            return await asyncio.shield(first.answer)
        first = self._under_way[name] = _First(key.digest, asyncio.get_running_loop().create_future())
        try:
            answer = await send()
        except BaseException as error:
            first.answer.set_exception(error if isinstance(error, LandlineError) else OutcomeUnknown())
            first.answer.exception()  # nobody need have waited
            raise
        else:
            first.answer.set_result(answer)
            return answer
        finally:
            del self._under_way[name]


def check_key(key: str) -> str:
    """A client's `Idempotency-Key`. Raises `BadArgument` unless it is 1 to 128 visible characters of ASCII."""
    if not _KEY.fullmatch(key):
        raise BadArgument("'Idempotency-Key' must be 1 to 128 visible ASCII characters")
    return key
