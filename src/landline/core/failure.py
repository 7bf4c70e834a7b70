"""A delivery that failed, as operators are told of it (bot 2.4)."""

from __future__ import annotations

import msgspec

from landline.core.log import ConversationId


class FailedDelivery(msgspec.Struct, frozen=True):
    """An activity that its bot did not take, `attempts` times; last at `at_ms` for `reason`, with `status` if there was
    one. What it said stands in the log only, so that it is gone when it is gone there."""

    bot_id: str
    conversation: ConversationId
    sequence: int
    at_ms: int
    reason: str
    status: int | None = None
    attempts: int = 1
