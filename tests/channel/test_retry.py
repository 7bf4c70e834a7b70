from __future__ import annotations

import time

import pytest

from landline.channel.retry import retry_while_unavailable
from landline.errors import DeadlinePassed, OutcomeUnknown, StoreUnavailable, UnknownConversation


class Attempts:
    """Fails as often as it is told, then answers how often it was asked."""

    def __init__(self, error: Exception, failures: int) -> None:
        self._error = error
        self._failures = failures
        self.made = 0

    async def __call__(self) -> int:
        self.made += 1
        if self.made <= self._failures:
            raise self._error
        return self.made


async def test_what_was_surely_not_stored_is_offered_again() -> None:
    assert await retry_while_unavailable(time.monotonic() + 5, Attempts(StoreUnavailable(), 3)) == 4


async def test_without_trouble_there_is_one_attempt_whatever_the_time() -> None:
    assert await retry_while_unavailable(time.monotonic() - 1, Attempts(StoreUnavailable(), 0)) == 1


async def test_patience_ends_in_time_and_with_the_stores_own_word() -> None:
    attempts = Attempts(StoreUnavailable("the disk is full"), 1000)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        await retry_while_unavailable(began + 0.3, attempts)
    assert 0.2 < time.monotonic() - began < 4
    assert attempts.made > 2


@pytest.mark.parametrize(
    "error", [OutcomeUnknown(), DeadlinePassed(), StoreUnavailable(retry=False), UnknownConversation(), ValueError()]
)
async def test_what_may_be_stored_or_never_will_be_is_not_offered_again(error: Exception) -> None:
    attempts = Attempts(error, 1000)
    with pytest.raises(type(error)):
        await retry_while_unavailable(time.monotonic() + 5, attempts)
    assert attempts.made == 1
