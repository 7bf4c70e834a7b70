"""Files before entries, and what is left when the store says no (spec 5.6)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from landline.blobs.files import FileBlobs
from landline.channel.attachments import Attachments, UploadBounds
from landline.core.attachments import Head, Role
from landline.core.conversation import Conversation
from landline.core.log import Accepted, ConversationId, NewEntry
from landline.errors import (
    BadArgument,
    ConversationFull,
    LandlineError,
    OutcomeUnknown,
    StoreUnavailable,
    TooLarge,
    UnknownAttachment,
    UnknownConversation,
)
from landline.stores.memory import MemoryStore
from support.channel import BOT, OTHER_BOT, Channel, TestClock
from support.scripted_transport import ScriptedTransport

HEAD = Head(content_type="image/png", filename="a.png")


class Stage:
    """A channel with files on a real disk, and a store whose appends can be made to fail or hang."""

    def __init__(self, path: Path, ttl_s: float | None = None) -> None:
        self.clock = TestClock()
        self.store = MemoryStore(self.clock)
        self.transport = ScriptedTransport()
        self.channel = Channel(self.store, self.transport, self.clock)
        self.blobs = FileBlobs(path / "blobs")
        self._bounds = UploadBounds(files=2, activity_bytes=100, ttl_s=ttl_s)
        self.files = self._files()
        self._path = path / "blobs"

    async def restart(self) -> None:
        """Die, and come back on the same disk."""
        self.blobs = FileBlobs(self._path)
        await self.blobs.open()
        self.files = self._files()

    def _files(self) -> Attachments:
        activities, bounds = self.channel.activities, self._bounds
        return Attachments(self.blobs, self.store, activities, self.clock, bounds, store_wait_s=5)

    async def upload(self, conversation: Conversation, content: bytes = b"content", within_s: float = 5) -> str:
        async with self.files.receive(self.channel.secret, conversation) as upload:
            upload.begin(HEAD, Role.FILE)
            await upload.write(content)
            deadline = time.monotonic() + within_s
            return await self.files.send(self.channel.secret, conversation, upload, "u1", deadline)

    async def attachment_ids(self, conversation: Conversation) -> list[str]:
        fresh = await self.channel.conversations.find(self.channel.secret, conversation.id)
        page = json.loads((await self.channel.activities.read(fresh, None, "http://here")).activity_set)
        return [file["contentUrl"].split("/")[-2] for each in page["activities"] for file in each["attachments"]]

    def kept(self) -> list[Path]:
        """Everything that takes space. What is in doubt has two names."""
        return list({path.stat().st_ino: path for path in self._path.rglob("*") if path.is_file()}.values())

    def appends(self, error: LandlineError) -> None:
        """From now on every append fails so."""

        async def append(conversation: ConversationId, entry: NewEntry, deadline: float) -> Accepted:
            raise error

        self.store.append = append  # type: ignore[method-assign]


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    await stage.blobs.open()
    yield stage
    await stage.channel.delivery.close()
    await stage.blobs.close()


@pytest.mark.parametrize(
    "error",
    [StoreUnavailable(retry=False), ConversationFull(), UnknownConversation()],
    ids=lambda each: type(each).__name__,
)
async def test_where_surely_no_entry_was_stored_no_file_stays(stage: Stage, error: LandlineError) -> None:
    conversation = await stage.channel.start()
    stage.appends(error)
    with pytest.raises(type(error)):
        await stage.upload(conversation)
    assert stage.kept() == []


async def test_where_an_entry_may_have_been_stored_the_file_stays(stage: Stage) -> None:
    conversation = await stage.channel.start()
    stage.appends(OutcomeUnknown())
    with pytest.raises(OutcomeUnknown):
        await stage.upload(conversation)
    assert len(stage.kept()) == 1


async def test_a_file_that_no_entry_came_to_point_at_is_removed_after_a_restart(stage: Stage) -> None:
    """The process dies between the two: what else it had kept stays, and so does what the next one is just keeping."""
    conversation = await stage.channel.start()
    await stage.upload(conversation, b"sent")
    real = stage.store.append
    stage.appends(OutcomeUnknown())
    with pytest.raises(OutcomeUnknown):
        await stage.upload(conversation, b"lost")
    bots = await stage.files.attach(conversation, b'{"originalBase64":"QQ=="}', time.monotonic() + 5)
    stage.store.append = real  # type: ignore[method-assign]
    assert len(stage.kept()) == 3
    await stage.restart()
    await stage.upload(conversation, b"later")
    await stage.files.settle_doubts()
    (sent, later) = await stage.attachment_ids(conversation)
    assert len(stage.kept()) == 3
    for each in (sent, later, bots):
        await (await stage.files.find(each)).close()


async def test_a_file_that_an_entry_points_at_is_in_doubt_only_until_that_is_known(stage: Stage) -> None:
    """The process dies before it has said so. The entry may stand on any page of the log."""
    conversation = await stage.channel.start()
    for n in range(250):
        await stage.channel.send(conversation, f"n {n}")
    await stage.upload(conversation)
    (path,) = stage.kept()
    (stage.blobs._aside / path.name).hardlink_to(path)  # as if that had not been said yet
    for left in (1, 0):
        await stage.restart()
        assert len(stage.blobs.doubts()) == left
        await stage.files.settle_doubts()
        (path,) = stage.kept()
        assert path.read_bytes().startswith(b"content")


async def test_a_sender_that_is_cancelled_in_the_append_leaves_the_file_to_the_entry(stage: Stage) -> None:
    """A cancelled caller does not cancel a write (ports.Store)."""
    conversation = await stage.channel.start()
    real, began, may_go_on = stage.store.append, asyncio.Event(), asyncio.Event()
    written: list[asyncio.Task[Accepted]] = []

    async def append(conversation: ConversationId, entry: NewEntry, deadline: float) -> Accepted:
        async def write() -> Accepted:
            await may_go_on.wait()
            return await real(conversation, entry, deadline)

        written.append(asyncio.create_task(write()))
        began.set()
        return await asyncio.shield(written[0])

    stage.store.append = append  # type: ignore[method-assign]
    sending = asyncio.create_task(stage.upload(conversation))
    await asyncio.wait_for(began.wait(), 5)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    may_go_on.set()
    await written[0]
    (attachment,) = await stage.attachment_ids(conversation)
    await (await stage.files.find(attachment)).close()


async def test_an_upload_that_is_refused_or_never_sent_leaves_nothing(stage: Stage) -> None:
    conversation = await stage.channel.start()
    async with stage.files.receive(stage.channel.secret, conversation) as upload:
        upload.begin(HEAD, Role.FILE)
        await upload.write(bytes(1_000_000))
        assert len(stage.kept()) == 1
    assert stage.kept() == []

    async def two_activities() -> None:
        async with stage.files.receive(stage.channel.secret, conversation) as upload:
            upload.begin(HEAD, Role.FILE)
            await upload.write(bytes(1_000_000))
            upload.begin(Head(), Role.ACTIVITY)
            upload.begin(Head(), Role.ACTIVITY)

    with pytest.raises(BadArgument):
        await two_activities()
    assert stage.kept() == []


@pytest.mark.item(111)
async def test_files_and_activity_are_bounded(stage: Stage) -> None:
    conversation = await stage.channel.start()
    async with stage.files.receive(stage.channel.secret, conversation) as upload:
        upload.begin(HEAD, Role.FILE)
        upload.begin(HEAD, Role.FILE)
        with pytest.raises(TooLarge):
            upload.begin(HEAD, Role.FILE)
        upload.begin(Head(), Role.ACTIVITY)
        await upload.write(bytes(100))
        with pytest.raises(TooLarge):
            await upload.write(b"x")
        upload.begin(Head(), Role.NEITHER)
        await upload.write(bytes(1_000_000))


@pytest.mark.item(113)
async def test_what_has_expired_is_not_found_even_before_it_is_swept(tmp_path: Path) -> None:
    stage = Stage(tmp_path, ttl_s=60)
    await stage.blobs.open()
    conversation = await stage.channel.start()
    await stage.upload(conversation)
    (attachment,) = await stage.attachment_ids(conversation)
    await (await stage.files.find(attachment)).close()
    stage.clock.offset_ms = 61_000
    with pytest.raises(UnknownAttachment):
        await stage.files.find(attachment)
    assert len(stage.kept()) == 1
    sweeping = asyncio.create_task(stage.files.sweep())
    async with asyncio.timeout(5):
        while stage.kept():
            await asyncio.sleep(0.01)
    sweeping.cancel()
    assert await stage.attachment_ids(conversation) == [attachment]
    await stage.channel.delivery.close()
    await stage.blobs.close()


async def test_nothing_is_swept_where_nothing_expires(stage: Stage) -> None:
    await asyncio.wait_for(stage.files.sweep(), 5)


@pytest.mark.bot_item(65, 67)
async def test_a_bot_hears_of_its_own_attachments_only(stage: Stage) -> None:
    conversation = await stage.channel.start()
    body = json.dumps({"name": "a.txt", "type": "text/plain", "originalBase64": "QQ=="}).encode()
    attachment = await stage.files.attach(conversation, body, time.monotonic() + 5)
    blob = await stage.files.find(attachment, BOT)
    assert (blob.attachment.name, blob.attachment.size_of("original")) == ("a.txt", 1)
    await blob.close()
    with pytest.raises(UnknownAttachment):
        await stage.files.find(attachment, OTHER_BOT)
