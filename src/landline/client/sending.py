"""A send until its outcome is known, or its deadline has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from landline.client.calls import Answer, Calls
from landline.client.errors import DirectLineError, OutcomeUnknown, Unreachable
from landline.client.options import Options, chance

_UNSURE = (500, 503, 504)
"""Answers behind which the activity may be accepted, since a proxy or a deadline may have given them."""
_RATE_LIMITED = 429

Attempt = Callable[[str], Awaitable[Answer]]
Renew = Callable[[], Awaitable[None]]


class Sending:
    """What is known of how the server takes repeats, for all sends of one conversation."""

    def __init__(self, calls: Calls, options: Options) -> None:
        self._calls = calls
        self._options = options
        self._idempotent = options.idempotent

    async def send(self, attempt: Attempt, renew: Renew, key: str, timeout_s: float | None) -> str:
        """Attempt under one key until the deadline; answer the activity's id. Raises as `Conversation.send`.

        An attempt that left and was not answered is repeated only where the server takes the repeat as the same
        activity (spec 8.5). One that was refused for its rate, or never left, is always repeated."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + (self._options.send_timeout_s if timeout_s is None else timeout_s)
        wait_s = self._options.first_wait_s
        unsure: OutcomeUnknown | None = None
        while True:
            retry_after_s = 0.0
            try:
                answer = await self._try(attempt, renew, key, unsure)
                if answer.ok:
                    return _id_of(answer)
                last: DirectLineError = _problem_of(answer)
                retry_after_s = answer.retry_after_s or 0.0
            except (OutcomeUnknown, Unreachable) as error:
                last = error
            if isinstance(last, OutcomeUnknown):
                unsure = last
            if self._idempotent is False and unsure is not None:
                raise unsure
            pause_s = max(retry_after_s, wait_s * chance())
            wait_s = min(wait_s * 2, self._options.longest_wait_s)
            if loop.time() + pause_s > give_up_at:
                raise unsure or last
            await asyncio.sleep(pause_s)

    async def _try(self, attempt: Attempt, renew: Renew, key: str, unsure: OutcomeUnknown | None) -> Answer:
        if unsure is not None and self._idempotent is None:
            self._idempotent = await self._calls.knows_idempotency()
            if not self._idempotent:
                raise unsure
        answer = await attempt(key)
        if answer.status in (401, 403):
            await renew()
            answer = await attempt(key)
        return answer


def _problem_of(answer: Answer) -> DirectLineError:
    """What may be tried again, as a value; anything else is raised."""
    refused = answer.error()
    if answer.status in _UNSURE:
        return OutcomeUnknown(str(refused))
    if answer.status == _RATE_LIMITED:
        return refused
    raise refused


def _id_of(answer: Answer) -> str:
    try:
        return str(msgspec.json.decode(answer.body)["id"])
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError):
        return ""  # accepted by a server that names no id
