from __future__ import annotations

import asyncio

import pytest

from landline.channel.streams import OpenStreams
from landline.core.log import ConversationId
from landline.core.stream import COLLISION, CONVERSATION_GONE, FORBIDDEN, GOING_AWAY, Close

A, B = ConversationId("A"), ConversationId("B")


class FakeStream:
    """Notes what it is told, and leaves the registry when it is woken if asked to, as a stream that breaks does."""

    def __init__(self, conversation: ConversationId = A, site: str = "s", ski: str = "k") -> None:
        self.conversation = conversation
        self.site = site
        self.ski = ski
        self.woken = 0
        self.closed: list[Close] = []
        self.leaves: OpenStreams | None = None

    def wake(self) -> None:
        self.woken += 1
        if self.leaves is not None:
            self.leaves.remove(self)

    def close(self, why: Close) -> None:
        self.closed.append(why)


def test_a_wake_up_reaches_every_stream_of_the_conversation_and_no_other() -> None:
    streams = OpenStreams()
    here, there = [FakeStream(A), FakeStream(A)], FakeStream(B)
    for stream in (*here, there):
        streams.add(stream)
    streams.moved(A)
    assert [s.woken for s in (*here, there)] == [1, 1, 0]


def test_a_wake_up_for_a_conversation_without_streams_is_nothing() -> None:
    OpenStreams().moved(A)


def test_a_removed_stream_is_not_woken() -> None:
    streams = OpenStreams()
    one, other = FakeStream(), FakeStream()
    streams.add(one)
    streams.add(other)
    streams.remove(one)
    streams.moved(A)
    streams.remove(other)
    streams.moved(A)
    assert (one.woken, other.woken, len(streams)) == (0, 1, 0)


def test_removing_twice_is_harmless() -> None:
    streams = OpenStreams()
    one, other = FakeStream(), FakeStream()
    streams.add(one)
    streams.add(other)
    streams.remove(one)
    streams.remove(one)
    assert streams.of(A) == (other,)
    assert len(streams) == 1


def test_a_stream_that_breaks_when_woken_does_not_keep_the_others_asleep() -> None:
    streams = OpenStreams()
    there = [FakeStream() for _ in range(3)]
    there[0].leaves = there[1].leaves = streams
    for stream in there:
        streams.add(stream)
    streams.moved(A)
    assert [s.woken for s in there] == [1, 1, 1]
    assert streams.of(A) == (there[2],)


@pytest.mark.item(155)
def test_one_stream_too_many_closes_the_oldest() -> None:
    streams = OpenStreams(8)
    there = [FakeStream() for _ in range(9)]
    for stream in there:
        streams.add(stream)
    assert [s.closed for s in there] == [[COLLISION]] + [[]] * 8
    assert streams.of(A) == tuple(there[1:])


@pytest.mark.item(138, 154)
def test_with_a_limit_of_one_the_second_stream_closes_the_first() -> None:
    streams = OpenStreams(1)
    first, second = FakeStream(), FakeStream()
    streams.add(first)
    streams.add(second)
    assert (first.closed, second.closed) == ([COLLISION], [])
    assert streams.of(A) == (second,)


def test_the_limit_counts_per_conversation() -> None:
    streams = OpenStreams(1)
    here, there = FakeStream(A), FakeStream(B)
    streams.add(here)
    streams.add(there)
    assert here.closed == there.closed == []


def test_a_conversation_that_is_gone_closes_its_streams() -> None:
    streams = OpenStreams()
    here, there = FakeStream(A), FakeStream(B)
    streams.add(here)
    streams.add(there)
    streams.close_conversation(A, CONVERSATION_GONE)
    assert (here.closed, there.closed) == ([CONVERSATION_GONE], [])
    assert list(streams) == [there]


def test_a_revoked_secret_closes_the_streams_that_it_opened() -> None:
    streams = OpenStreams()
    old, new, foreign = FakeStream(ski="old"), FakeStream(ski="new"), FakeStream(B, site="t", ski="old")
    for stream in (old, new, foreign):
        streams.add(stream)
    streams.close_unless(lambda site, ski: (site, ski) != ("s", "old"), FORBIDDEN)
    assert [s.closed for s in (old, new, foreign)] == [[FORBIDDEN], [], []]
    streams.close_unless(lambda site, ski: site != "s", FORBIDDEN)
    assert [s.closed for s in (old, new, foreign)] == [[FORBIDDEN], [FORBIDDEN], []]


async def test_a_drain_closes_all_streams_and_not_all_at_once() -> None:
    streams = OpenStreams(32)
    there = [FakeStream(ConversationId(f"C{n % 7}")) for n in range(20)]
    for stream in there:
        streams.add(stream)
    draining = asyncio.create_task(streams.drain(0.5))
    await asyncio.sleep(0)
    assert 0 < sum(len(s.closed) for s in there) < 20
    latecomer = FakeStream()
    streams.add(latecomer)
    await draining
    assert all(s.closed == [GOING_AWAY] for s in (*there, latecomer))
    assert len(streams) == 0


async def test_a_drain_without_time_closes_all_at_once() -> None:
    streams = OpenStreams()
    stream = FakeStream()
    streams.add(stream)
    await streams.drain(0)
    assert stream.closed == [GOING_AWAY]
