"""Attachments in a real PostgreSQL: there for every node or for none, within their bounds, and nothing left of what was
refused (ports.Blobs)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from landline.blobs.postgres import PostgresBlobs, _remove_slice
from landline.blobs.totals import Bounds
from landline.core.attachments import Attachment, AttachmentId, View
from landline.core.log import ConversationId
from landline.errors import StoreUnavailable, TooMuchInConversation, TooMuchOfSite
from landline.stores.postgres import PostgresStore
from support import postgres
from support.stores import InPostgres

C, OTHER = ConversationId("Kq3vW9sTz1"), ConversationId("another-one")
KNOWN = Attachment(C, "a.png", "image/png", 1_700_000_000_000)

pytestmark = pytest.mark.skipif(postgres.PROGRAMS is None, reason=postgres.MISSING)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[InPostgres]:
    """A database."""
    home = InPostgres(tmp_path)
    yield home
    await home.close()


@pytest.fixture
async def store(home: InPostgres) -> PostgresStore:
    """The store, which has the connections."""
    return await home.open()


@pytest.fixture
async def blobs(store: PostgresStore, home: InPostgres) -> AsyncIterator[PostgresBlobs]:
    """Blobs in a database that nothing is in yet."""
    blobs = PostgresBlobs(store, home.clock)
    await blobs.open()
    yield blobs
    await blobs.close()


async def put(blobs: PostgresBlobs, content: bytes, known: Attachment = KNOWN, **ways: bool) -> AttachmentId:
    draft = blobs.draft(known.conversation)
    await draft.write(content)
    await blobs.keep([(draft, known)], **ways)
    return draft.id


async def content_of(blobs: PostgresBlobs, attachment: AttachmentId, view: str = "original") -> bytes | None:
    blob = await blobs.find(attachment)
    if blob is None:
        return None
    size = blob.attachment.size_of(view)
    assert size is not None
    pieces = [piece async for piece in blob.read(view, 0, size)]
    assert all(len(piece) <= 256 * 1024 for piece in pieces)
    await blob.close()
    return b"".join(pieces)


def counted(home: InPostgres, table: str) -> int:
    return int(home.cluster.sql(f"SELECT count(*) FROM landline.{table}", home.database))


def weighs(home: InPostgres) -> int:
    return int(home.cluster.sql("SELECT coalesce(sum(bytes), 0) FROM landline.weights", home.database))


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
async def test_what_was_kept_is_found_by_another_node(
    blobs: PostgresBlobs, store: PostgresStore, home: InPostgres, size: int
) -> None:
    content = os.urandom(size)
    attachment = await put(blobs, content)
    again = PostgresBlobs(store, home.clock)
    assert await content_of(again, attachment) == content
    blob = await again.find(attachment)
    assert blob is not None
    assert blob.attachment == Attachment(C, "a.png", "image/png", KNOWN.made_ms, (View("original", size),))


async def test_views_are_told_apart_and_parts_of_them_can_be_read(blobs: PostgresBlobs) -> None:
    draft = blobs.draft(C)
    content = os.urandom(600_000)
    for start in range(0, len(content), 50_000):
        await draft.write(content[start : start + 50_000])
    await draft.write(b"thumb", "thumbnail")
    await blobs.keep([(draft, KNOWN)])
    assert await content_of(blobs, draft.id) == content
    assert await content_of(blobs, draft.id, "thumbnail") == b"thumb"
    blob = await blobs.find(draft.id)
    assert blob is not None
    assert b"".join([piece async for piece in blob.read("thumbnail", 1, 3)]) == b"hum"
    assert b"".join([piece async for piece in blob.read("original", 262_000, 1000)]) == content[262_000:263_000]


async def test_a_draft_is_nowhere_to_be_found_until_it_is_kept(blobs: PostgresBlobs) -> None:
    draft = blobs.draft(C)
    await draft.write(bytes(1_000_000))
    assert await blobs.find(draft.id) is None
    await blobs.keep([(draft, KNOWN)])
    assert await content_of(blobs, draft.id) == bytes(1_000_000)
    for wrong in ("", "aside", draft.id[:-1], draft.id + "0", draft.id.upper() + "A", "\0", "é"):
        assert await blobs.find(AttachmentId(wrong)) is None


async def test_what_is_discarded_weighs_nothing_and_its_bytes_go(blobs: PostgresBlobs, home: InPostgres) -> None:
    fresh, written, kept = blobs.draft(C), blobs.draft(C, "site"), blobs.draft(C)
    for draft in (written, kept):
        await draft.write(bytes(300_000))
    await blobs.keep([(kept, KNOWN)])
    for _ in range(2):
        await blobs.discard([fresh, written, kept])
        assert (await blobs.find(kept.id), weighs(home)) == (None, 0)
    home.cluster.sql("UPDATE landline.blobs SET changed_at = now() - interval '1 day'", home.database)
    while await blobs.change(_remove_slice):
        pass
    assert (counted(home, "blobs"), counted(home, "chunks")) == (0, 0)


async def test_what_is_removed_while_it_is_read_is_read_to_its_end(blobs: PostgresBlobs) -> None:
    content = os.urandom(700_000)
    blob = await blobs.find(await put(blobs, content))
    assert blob is not None
    reading = blob.read("original", 0, len(content))
    pieces = [await anext(reading)]
    await blobs.forget(C)
    pieces += [piece async for piece in reading]
    assert b"".join(pieces) == content


async def test_drafts_of_a_node_that_died_are_removed_and_those_of_living_ones_stay(
    blobs: PostgresBlobs, home: InPostgres
) -> None:
    dead, living = blobs.draft(C), blobs.draft(C)
    for draft in (dead, living):
        await draft.write(bytes(300_000))
    home.cluster.sql(
        f"UPDATE landline.blobs SET changed_at = now() - interval '2 hours' WHERE id = '{dead.id}'", home.database
    )
    while await blobs.change(_remove_slice):
        pass
    assert counted(home, "blobs") == 1
    await blobs.keep([(living, KNOWN)])
    assert await content_of(blobs, living.id) == bytes(300_000)


async def test_what_is_in_doubt_when_a_node_dies_is_known_to_the_next(
    blobs: PostgresBlobs, store: PostgresStore, home: InPostgres
) -> None:
    settled, doubted, fresh = [await put(blobs, b"x", doubtful=True) for _ in range(3)]
    await blobs.settle([settled])
    home.cluster.sql(
        f"UPDATE landline.blobs SET changed_at = now() - interval '1 hour' WHERE id <> '{fresh}'", home.database
    )
    again = PostgresBlobs(store, home.clock)
    await again.open()
    assert again.doubts() == ((doubted, C),)
    await again.drop(doubted)
    await again.close()
    assert await blobs.find(doubted) is None


async def test_a_conversation_is_forgotten_alone_and_what_expired_goes(blobs: PostgresBlobs, home: InPostgres) -> None:
    mine, other = await put(blobs, b"mine"), await put(blobs, b"other", Attachment(OTHER, "b", "text/plain", 1))
    await blobs.forget(C)
    assert (await content_of(blobs, mine), await content_of(blobs, other)) == (None, b"other")
    assert await blobs.expire(home.clock.now_ms()) == 0
    assert await blobs.expire(home.clock.now_ms() + 1) == 1
    assert (await content_of(blobs, other), weighs(home)) == (None, 0)


async def test_uploads_of_two_nodes_together_stay_within_the_bounds(store: PostgresStore, home: InPostgres) -> None:
    nodes = [
        PostgresBlobs(store, home.clock, Bounds(conversation_bytes=1_000_000, site_bytes=2_000_000)) for _ in range(2)
    ]

    async def upload(number: int, conversation: ConversationId, site: str | None) -> type[BaseException] | None:
        node = nodes[number % 2]
        draft = node.draft(conversation, site)
        try:
            await draft.write(bytes(300_000))
            await node.keep([(draft, Attachment(conversation, "a", "text/plain", 1))])
        except (TooMuchInConversation, TooMuchOfSite) as error:
            await node.discard([draft])
            return type(error)
        return None

    outcomes = await asyncio.gather(*(upload(number, C, None) for number in range(6)))
    assert outcomes.count(TooMuchInConversation) >= 3
    assert outcomes.count(None) >= 1
    outcomes = [await upload(number, ConversationId(f"other-{number}"), "site") for number in range(8)]
    assert outcomes == [None] * 6 + [TooMuchOfSite] * 2


async def test_after_the_end_nothing_is_stored(blobs: PostgresBlobs, store: PostgresStore) -> None:
    attachment = await put(blobs, b"x")
    await blobs.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await blobs.find(attachment)
    draft = blobs.draft(C)
    await draft.write(b"x")
    with pytest.raises(StoreUnavailable):
        await blobs.keep([(draft, KNOWN)])
    await blobs.discard([draft])
