"""Attachments on a real disk: there or not there, never half, and nothing left of what was refused (ports.Blobs)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from landline.blobs import files
from landline.blobs.files import FileBlobs
from landline.core.attachments import Attachment, AttachmentId, View
from landline.core.log import ConversationId
from landline.errors import DataDirectoryError, StoreUnavailable

C, OTHER = ConversationId("Kq3vW9sTz1"), ConversationId("another-one")
KNOWN = Attachment(C, "a.png", "image/png", 1_700_000_000_000)


@pytest_asyncio.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[FileBlobs]:
    """Blobs in a directory that nothing is in yet."""
    blobs = FileBlobs(tmp_path / "blobs")
    await blobs.open()
    yield blobs
    await blobs.close()


def there(blobs: FileBlobs) -> list[Path]:
    return [path for path in blobs._path.rglob("*") if path.is_file()]


async def put(blobs: FileBlobs, content: bytes, known: Attachment = KNOWN, *, doubtful: bool = False) -> AttachmentId:
    draft = blobs.draft(known.conversation)
    await draft.write(content)
    await blobs.keep([(draft, known)], doubtful=doubtful)
    return draft.id


async def content_of(blobs: FileBlobs, attachment: AttachmentId, view: str = "original") -> bytes | None:
    blob = await blobs.find(attachment)
    if blob is None:
        return None
    size = blob.attachment.size_of(view)
    assert size is not None
    pieces = [piece async for piece in blob.read(view, 0, size)]
    assert all(len(piece) <= 256 * 1024 for piece in pieces)
    await blob.close()
    return b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
async def test_what_was_kept_is_found_again_by_another_process(blobs: FileBlobs, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    attachment = await put(blobs, content)
    again = FileBlobs(tmp_path / "blobs")
    await again.open()
    assert await content_of(again, attachment) == content
    blob = await again.find(attachment)
    assert blob is not None
    assert blob.attachment == Attachment(C, "a.png", "image/png", KNOWN.made_ms, (View("original", size),))
    await blob.close()
    await again.close()


async def test_views_are_told_apart_and_parts_of_them_can_be_read(blobs: FileBlobs) -> None:
    draft = blobs.draft(C)
    await draft.write(b"0123")
    await draft.write(b"456789")
    await draft.write(b"thumb", "thumbnail")
    await blobs.keep([(draft, KNOWN)])
    assert await content_of(blobs, draft.id) == b"0123456789"
    assert await content_of(blobs, draft.id, "thumbnail") == b"thumb"
    blob = await blobs.find(draft.id)
    assert blob is not None
    assert [piece async for piece in blob.read("thumbnail", 1, 3)] == [b"hum"]
    assert [piece async for piece in blob.read("original", 9, 1)] == [b"9"]
    assert blob.attachment.size_of("other") is None
    await blob.close()


async def test_a_draft_is_nowhere_to_be_found_until_it_is_kept(blobs: FileBlobs) -> None:
    draft = blobs.draft(C)
    await draft.write(bytes(1_000_000))
    assert await blobs.find(draft.id) is None
    await blobs.keep([(draft, KNOWN)])
    assert await content_of(blobs, draft.id) == bytes(1_000_000)


async def test_an_id_cannot_be_guessed_and_leads_to_nothing_else(blobs: FileBlobs) -> None:
    ids = [await put(blobs, b"x") for _ in range(20)]
    assert len({each[20:] for each in ids}) == 20
    assert all(len(each[20:]) * 4 >= 128 for each in ids)
    for wrong in ("", "../lock", "aside", ids[0][:-1], ids[0] + "0", ids[0].upper(), ids[0][:20] + "0" * 40, "\0", "é"):
        if wrong != ids[0]:
            assert await blobs.find(AttachmentId(wrong)) is None


async def test_what_is_discarded_is_gone_whether_it_was_kept_or_not(blobs: FileBlobs) -> None:
    fresh, written, kept = blobs.draft(C), blobs.draft(C), blobs.draft(C)
    for draft in (written, kept):
        await draft.write(bytes(300_000))
    await blobs.keep([(kept, KNOWN)])
    assert len(there(blobs)) == 2
    await blobs.discard([fresh, written, kept])
    assert there(blobs) == []
    await blobs.discard([fresh, written, kept])


async def test_a_cancelled_upload_leaves_nothing_even_while_a_thread_still_writes(
    blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in ("_write", "sync"):
        began = asyncio.Event()
        loop = asyncio.get_running_loop()
        real = getattr(files, slow)

        def dawdle(*arguments: object, began=began, loop=loop, real=real) -> None:
            loop.call_soon_threadsafe(began.set)
            time.sleep(0.2)
            real(*arguments)

        monkeypatch.setattr(files, slow, dawdle)
        draft = blobs.draft(C)

        async def upload(draft=draft) -> None:
            try:
                await draft.write(bytes(1_000_000))
                await blobs.keep([(draft, KNOWN)])
            finally:
                await blobs.discard([draft])

        task = asyncio.create_task(upload())
        await asyncio.wait_for(began.wait(), 10)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert there(blobs) == []
        monkeypatch.undo()


async def test_everything_is_synced_before_it_is_kept(blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """File first, name second: the order that a power cut cannot turn into a name without its bytes."""
    done: list[tuple[str, str]] = []
    names: dict[int, str] = {}
    fsync, rename, fdopen = os.fsync, Path.rename, os.open

    def opened(path: object, *arguments: object) -> int:
        descriptor = fdopen(path, *arguments)  # type: ignore[arg-type]
        names[descriptor] = Path(str(path)).name
        return descriptor

    def synced(descriptor: int) -> None:
        done.append(("sync", names[descriptor]))
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        done.append(("rename", target.name))
        return rename(self, target)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    drafts = [blobs.draft(C), blobs.draft(C)]
    for draft in drafts:
        await draft.write(b"x")
    await blobs.keep([(draft, KNOWN) for draft in drafts])
    first, second = (draft.id[20:] for draft in drafts)
    room = drafts[0].id[:20]
    assert done == [
        ("sync", first),
        ("sync", second),
        ("sync", "blobs"),
        ("sync", room[:2]),
        ("rename", first),
        ("rename", second),
        ("sync", room),
    ]


async def test_a_disk_that_fails_is_storage_that_is_unavailable(
    blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    draft = blobs.draft(C)
    monkeypatch.setattr(files, "_write", full)
    with pytest.raises(StoreUnavailable):
        await draft.write(bytes(1_000_000))
    await blobs.discard([draft])
    monkeypatch.undo()
    draft = blobs.draft(C)
    await draft.write(b"x")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable):
        await blobs.keep([(draft, KNOWN)])
    monkeypatch.undo()
    await blobs.discard([draft])
    assert there(blobs) == []
    assert await content_of(blobs, await put(blobs, b"y")) == b"y"


async def test_what_a_dead_process_left_aside_is_removed_and_nothing_else(blobs: FileBlobs, tmp_path: Path) -> None:
    attachment = await put(blobs, b"x")
    draft = blobs.draft(C)
    await draft.write(bytes(300_000))
    again = FileBlobs(tmp_path / "blobs")
    await again.open()
    assert len(there(again)) == 1
    assert await content_of(again, attachment) == b"x"
    await again.close()
    await blobs.discard([draft])


async def test_what_is_in_doubt_when_a_process_dies_is_known_to_the_next(blobs: FileBlobs, tmp_path: Path) -> None:
    certain, settled = await put(blobs, b"certain"), await put(blobs, b"settled", doubtful=True)
    doubted = [await put(blobs, b"doubted", doubtful=True) for _ in range(2)]
    await blobs.settle([settled])
    for left in (doubted, doubted[1:], []):
        again = FileBlobs(tmp_path / "blobs")
        await again.open()
        assert sorted(again.doubts()) == sorted((each, C) for each in left)
        for each in left:
            assert await content_of(again, each) == b"doubted"
        if len(left) == 2:
            await again.drop(left[0])
        else:
            await again.settle(left)
        await again.close()
    assert [await content_of(blobs, each) for each in (certain, settled, *doubted)] == [
        b"certain",
        b"settled",
        None,
        b"doubted",
    ]
    assert len(there(blobs)) == 3


async def test_what_is_removed_while_it_is_in_doubt_is_gone_by_both_names(blobs: FileBlobs) -> None:
    old = await put(blobs, b"old", Attachment(OTHER, "b", "text/plain", 1), doubtful=True)
    os.utime(blobs._place(old), (1, 1))
    await put(blobs, b"mine", doubtful=True)
    assert len(there(blobs)) == 4
    await blobs.expire(2_000)
    await blobs.forget(C)
    assert there(blobs) == []


async def test_where_a_file_cannot_have_two_names_nobody_doubts(
    blobs: FileBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", unknown)
    attachment = await put(blobs, b"x", doubtful=True)
    again = FileBlobs(tmp_path / "blobs")
    await again.open()
    assert again.doubts() == ()
    assert await content_of(again, attachment) == b"x"
    await again.close()


async def test_a_conversation_is_forgotten_alone_and_whole(blobs: FileBlobs) -> None:
    mine = [await put(blobs, b"mine") for _ in range(3)]
    other = await put(blobs, b"other", Attachment(OTHER, "b", "text/plain", 1))
    blob = await blobs.find(mine[0])
    assert blob is not None
    await blobs.forget(C)
    assert [await blobs.find(each) for each in mine] == [None, None, None]
    assert await content_of(blobs, other) == b"other"
    assert [piece async for piece in blob.read("original", 0, 4)] == [b"mine"]
    await blob.close()
    await blobs.forget(C)
    assert await content_of(blobs, await put(blobs, b"back")) == b"back"


async def test_what_has_expired_is_removed_and_its_room_stays_usable(blobs: FileBlobs) -> None:
    old, young = await put(blobs, b"old"), await put(blobs, b"young")
    lonely = await put(blobs, b"lonely", Attachment(OTHER, "b", "text/plain", 1))
    now_ms = int(time.time() * 1000)
    for attachment in (old, lonely):
        os.utime(blobs._place(attachment), (now_ms / 1000 - 100,) * 2)
    assert await blobs.expire(now_ms - 50_000) == 2
    assert [await content_of(blobs, each) for each in (old, young, lonely)] == [None, b"young", None]
    assert await blobs.expire(now_ms - 50_000) == 0
    again = await put(blobs, b"again", Attachment(OTHER, "b", "text/plain", 1))
    assert await content_of(blobs, again) == b"again"


async def test_files_are_private(blobs: FileBlobs) -> None:
    place = blobs._place(await put(blobs, b"x"))
    assert place.stat().st_mode & 0o777 == 0o600
    while place != blobs._path:
        place = place.parent
        assert place.stat().st_mode & 0o777 == 0o700


async def test_a_damaged_file_is_said_to_be_unavailable(blobs: FileBlobs) -> None:
    for damage in (b"", b"short", b"x" * 100, b"{}" + (2).to_bytes(4) + b"LLA1", b"x" + (9).to_bytes(4) + b"LLA1"):
        attachment = await put(blobs, b"x")
        blobs._place(attachment).write_bytes(damage)
        with pytest.raises(StoreUnavailable):
            await blobs.find(attachment)


async def test_a_directory_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file")
    blobs = FileBlobs(tmp_path / "blobs")
    with pytest.raises(DataDirectoryError):
        await blobs.open()
    await blobs.close()


async def test_after_the_end_nothing_is_stored(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    await blobs.open()
    attachment = await put(blobs, b"x")
    await blobs.close()
    await blobs.close()
    with pytest.raises(StoreUnavailable):
        await blobs.find(attachment)
    draft = blobs.draft(C)
    await draft.write(b"x")
    with pytest.raises(StoreUnavailable):
        await blobs.keep([(draft, KNOWN)])
    await blobs.discard([draft])
