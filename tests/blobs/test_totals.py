"""Stored uploads are bounded per conversation and per site: whoever writes at once, fails, restarts or goes (issue of
disks that one token filled)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from landline.blobs.files import FileBlobs
from landline.blobs.totals import BLOCK_BYTES, Bounds
from landline.core.attachments import Attachment, AttachmentId
from landline.core.log import ConversationId
from landline.errors import TooLarge, TooLittleSpace, TooMuchInConversation, TooMuchOfSite
from support.small_disk import SmallDisk

C, OTHER = ConversationId("Kq3vW9sTz1"), ConversationId("another-one")
SITE = "default"
QUARTER = b"x" * (3 * BLOCK_BYTES)
"""With what is known of it, a file of four blocks."""


async def opened(path: Path, *, conversation: int = 0, site: int = 0, floor: int = 0) -> FileBlobs:
    blobs = FileBlobs(path / "blobs", Bounds(conversation * BLOCK_BYTES, site * BLOCK_BYTES, floor))
    await blobs.open()
    return blobs


async def put(
    blobs: FileBlobs, content: bytes = QUARTER, conversation: ConversationId = C, site: str | None = SITE
) -> AttachmentId:
    """Upload it, or leave nothing of it."""
    draft = blobs.draft(conversation, site)
    try:
        if content:
            await draft.write(content)
        await blobs.keep([(draft, Attachment(conversation, "a.bin", "image/png", 0))])
    except BaseException:
        await blobs.discard([draft])
        raise
    return draft.id


def on_disk(path: Path) -> int:
    return sum(-(-each.stat().st_size // BLOCK_BYTES) for each in path.rglob("*") if each.is_file())


async def test_a_conversation_is_full_and_another_is_not(tmp_path: Path) -> None:
    blobs = await opened(tmp_path, conversation=8)
    await put(blobs)
    await put(blobs)
    with pytest.raises(TooMuchInConversation):
        await put(blobs, b"one more")
    await put(blobs, conversation=OTHER)
    assert on_disk(tmp_path) == 12
    await blobs.close()


async def test_a_site_is_full_and_another_is_not_and_bots_have_none(tmp_path: Path) -> None:
    blobs = await opened(tmp_path, site=8)
    await put(blobs)
    await put(blobs, conversation=OTHER)
    with pytest.raises(TooMuchOfSite):
        await put(blobs, b"one more", ConversationId("a-third-one"))
    await put(blobs, site="elsewhere")
    await put(blobs, site=None)
    await blobs.close()


async def test_empty_files_take_room_too(tmp_path: Path) -> None:
    blobs = await opened(tmp_path, conversation=3)
    for _ in range(3):
        await put(blobs, b"")
    with pytest.raises(TooMuchInConversation):
        await put(blobs, b"")
    await blobs.close()


async def test_uploads_at_the_same_time_stay_within_the_bound(tmp_path: Path) -> None:
    blobs = await opened(tmp_path, conversation=16, site=24)
    names = [C, OTHER] * 20
    outcomes = await asyncio.gather(*(put(blobs, conversation=name) for name in names), return_exceptions=True)
    assert all(isinstance(each, str | TooLarge) for each in outcomes)
    # Some may have been refused for those that were refused themselves; what is free is free again.
    assert on_disk(tmp_path) <= 24
    for name in names:
        try:
            await put(blobs, conversation=name)
        except TooLarge:
            continue
    assert on_disk(tmp_path) == 24
    await blobs.close()


async def cut_off(blobs: FileBlobs) -> None:
    """Somebody hangs up in the middle."""
    draft = blobs.draft(C, SITE)
    await draft.write(bytes(7 * BLOCK_BYTES))
    await blobs.discard([draft])


async def refused(blobs: FileBlobs) -> None:
    with pytest.raises(TooLarge):
        await put(blobs, bytes(20 * BLOCK_BYTES))


async def withdrawn(blobs: FileBlobs) -> None:
    """Its message was refused after it was kept."""
    draft = blobs.draft(C, SITE)
    await draft.write(QUARTER)
    await blobs.keep([(draft, Attachment(C, "a.bin", "image/png", 0))], doubtful=True)
    await blobs.discard([draft])


async def forgotten(blobs: FileBlobs) -> None:
    await put(blobs)
    await blobs.forget(C)


async def expired(blobs: FileBlobs) -> None:
    await put(blobs)
    assert await blobs.expire(10**15) == 1


async def dropped(blobs: FileBlobs) -> None:
    await blobs.drop(await put(blobs))


async def withdrawn_although_forgotten(blobs: FileBlobs) -> None:
    draft = blobs.draft(C, SITE)
    await draft.write(QUARTER)
    await blobs.keep([(draft, Attachment(C, "a.bin", "image/png", 0))], doubtful=True)
    await blobs.forget(C)
    await blobs.discard([draft])


Gone = Callable[[FileBlobs], Awaitable[None]]


@pytest.mark.parametrize(
    "gone", [cut_off, refused, withdrawn, forgotten, expired, dropped, withdrawn_although_forgotten]
)
@pytest.mark.parametrize("bound", ["conversation", "site"])
async def test_what_is_gone_counts_no_longer(tmp_path: Path, gone: Gone, bound: str) -> None:
    blobs = await opened(tmp_path, **{bound: 8})
    for _ in range(3):
        await gone(blobs)
    assert on_disk(tmp_path) == 0
    await put(blobs)
    await put(blobs)
    with pytest.raises(TooLarge):
        await put(blobs)
    await blobs.close()


@pytest.mark.parametrize("bound", ["conversation", "site"])
async def test_what_an_earlier_process_stored_counts(tmp_path: Path, bound: str) -> None:
    blobs = await opened(tmp_path, **{bound: 8})
    await put(blobs)
    left = blobs.draft(C, SITE)  # its process dies
    await left.write(bytes(4 * BLOCK_BYTES))
    await blobs.close()
    blobs = await opened(tmp_path, **{bound: 8})
    await put(blobs)
    with pytest.raises(TooLarge):
        await put(blobs, b"one more")
    # Of both processes, whichever counts them.
    await blobs.forget(C)
    await put(blobs)
    await put(blobs)
    with pytest.raises(TooLarge):
        await put(blobs, b"one more")
    await blobs.close()


async def test_files_that_go_while_sites_are_counted_do_not_count_twice_nor_below_nothing(tmp_path: Path) -> None:
    blobs = await opened(tmp_path)
    names = [ConversationId(f"conversation-{number}") for number in range(40)]
    for name in names:
        await put(blobs, conversation=name)
    await blobs.close()
    blobs = await opened(tmp_path, site=4 * 21)
    await asyncio.gather(*(blobs.forget(name) for name in names[:20]))
    await blobs.sites_counted()
    await put(blobs)
    with pytest.raises(TooMuchOfSite):
        await put(blobs)
    await blobs.close()


async def outcome(uploading: Awaitable[AttachmentId]) -> type[TooLarge] | None:
    """As what it was refused, if it was."""
    try:
        await uploading
    except TooLarge as error:
        return type(error)
    return None


async def test_no_upload_goes_below_the_floor_of_free_space(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "disk", mib=4) as disk:
        blobs = await opened(disk.path, floor=2 << 20)
        outcomes = [await outcome(put(blobs, bytes(100_000))) for _ in range(30)]
        assert 15 <= outcomes.count(None) <= 21
        assert outcomes[-1] is TooLittleSpace
        await blobs.forget(C)
        await put(blobs, bytes(100_000))
        await blobs.close()
