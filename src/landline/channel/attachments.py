"""Files: what clients upload, what bots attach, and who fetches it (specification 5.6, 5.8, bot-side 3.6).

The bytes are durable before the activity that points at them is recorded: an entry never points at nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

import msgspec
import structlog

from landline.channel.activities import Activities
from landline.channel.parsing import parsed
from landline.channel.retry import retry_while_unavailable
from landline.channel.tokens import Grant
from landline.core import activity, attachments
from landline.core.attachments import Attachment, AttachmentId, BotUpload, File, Head, Role
from landline.core.bot import Bot
from landline.core.conversation import Conversation
from landline.core.log import ConversationId, Entry
from landline.errors import (
    BadArgument,
    DeadlinePassed,
    LandlineError,
    OutcomeUnknown,
    StoreUnavailable,
    TooLarge,
    TooLittleSpace,
    UnknownAttachment,
    UnknownConversation,
)
from landline.ports import Blob, Blobs, Clock, Draft, Store

_SWEEP_S = 3600.0
"""How often files that have expired are removed. Until then they are there, but nobody can fetch them."""

_RETRY_S = 0.25
"""Pause before a file that was surely not kept is written again, all of it."""

_OTHER_PARTS = 32
"""Parts of an upload that may be no file: the activity, and what forms of pages have besides."""

_PAGE, _PAGE_BYTES = 100, 1 << 20
"""Activities, and bytes of them, that are looked through at a time."""

_log = structlog.get_logger(__name__)


class UploadBounds(msgspec.Struct, frozen=True):
    """What one upload may hold, and how long its files can be fetched (None: as long as the conversation is kept)."""

    files: int
    activity_bytes: int
    ttl_s: float | None = None


class Upload:
    """An upload on its way in: its files aside on disk, its activity in memory."""

    def __init__(self, blobs: Blobs, conversation: ConversationId, site: str, bounds: UploadBounds) -> None:
        self.activity: bytearray | None = None
        self.files: list[tuple[Draft, Head]] = []
        self.is_recorded = False
        """Whether an entry may point at the files."""
        self.is_settled = False
        """Whether one does."""
        self._blobs = blobs
        self._conversation = conversation
        self._site = site
        self._bounds = bounds
        self._role = Role.NEITHER
        self._parts = hashlib.sha256()
        self._part = hashlib.sha256()

    @property
    def most_parts(self) -> int:
        """How many parts it may have, whatever they are: each costs time."""
        return self._bounds.files + _OTHER_PARTS

    def digest(self) -> bytes:
        """Over what the parts say, not over the bytes between them: a form that is sent again has another boundary."""
        return self._parts.digest() + self._part.digest()

    def begin(self, head: Head, role: Role) -> None:
        """A part begins. Raises `BadArgument` for a second activity, `TooLarge` for one file too many."""
        self._role = role
        self._parts.update(self._part.digest())
        self._part = hashlib.sha256(msgspec.json.encode((head, role.value)))
        if role is Role.ACTIVITY:
            if self.activity is not None:
                raise BadArgument("The upload has two activities")
            self.activity = bytearray()
        elif role is Role.FILE:
            if len(self.files) == self._bounds.files:
                raise TooLarge(f"The upload has more than {self._bounds.files} files")
            self.files.append((self._blobs.draft(self._conversation, self._site), head))

    async def write(self, piece: bytes) -> None:
        """Some of its bytes. Raises `TooLarge`, also where there is no room for more uploads; `StoreUnavailable`."""
        self._part.update(piece)
        if self._role is Role.FILE:
            await self.files[-1][0].write(piece)
        elif self._role is Role.ACTIVITY and self.activity is not None:
            self.activity += piece
            if len(self.activity) > self._bounds.activity_bytes:
                raise TooLarge

    @property
    def drafts(self) -> list[Draft]:
        """Its files."""
        return [draft for draft, _ in self.files]


class Attachments:
    """The use cases around files."""

    def __init__(
        self,
        blobs: Blobs,
        store: Store,
        activities: Activities,
        clock: Clock,
        bounds: UploadBounds,
        *,
        store_wait_s: float,
    ) -> None:
        self._blobs = blobs
        self._store = store
        self._activities = activities
        self._clock = clock
        self._bounds = bounds
        self._store_wait_s = store_wait_s

    # From clients

    @contextlib.asynccontextmanager
    async def receive(self, grant: Grant, conversation: Conversation) -> AsyncIterator[Upload]:
        """An upload to be filled and sent. Of one that is refused, or never sent, nothing is left."""
        upload = Upload(self._blobs, conversation.id, grant.site.id, self._bounds)
        try:
            yield upload
        finally:
            if upload.is_settled:
                await self._blobs.settle([draft.id for draft in upload.drafts])
            elif not upload.is_recorded and upload.files:
                await self._blobs.discard(upload.drafts)

    async def send(
        self,
        grant: Grant,
        conversation: Conversation,
        upload: Upload,
        user_id: str | None,
        deadline: float,
        key: str | None = None,
    ) -> str:
        """Send the activity of `upload` with its files; from then on as `Activities.send` (5.6, 8.5).

        The token's user wins over the activity's `from.id`, and that over `user_id`. Raises `RequestError`, and
        `StoreUnavailable` with nothing stored.
        """
        grant.check_bound()
        files = [
            File(draft.id, attachments.file_name(head.filename), head.content_type) for draft, head in upload.files
        ]
        written = None if upload.activity is None else bytes(upload.activity)
        message, posted = await parsed(
            len(written or b""), lambda: _read(written, files, user_id, grant, conversation.id)
        )
        known = [
            Attachment(conversation.id, file.name, content_type, self._clock.now_ms())
            for file, content_type in zip(files, message.content_types, strict=True)
        ]
        send_key = None if key is None else self._activities.key(posted, key, upload.digest())
        await self._keep(list(zip(upload.drafts, known, strict=True)), deadline, doubtful=True)
        upload.is_recorded = True  # as far as is known: a cancelled append may still be written
        used: list[bool] = []
        try:
            activity_id = await self._activities.accept(
                grant.bot, conversation, posted, deadline, send_key, lambda: used.append(True)
            )
        except OutcomeUnknown:
            raise
        except LandlineError:
            upload.is_recorded = upload.is_settled = bool(used)
            raise
        upload.is_recorded = upload.is_settled = bool(used)
        return activity_id

    async def settle_doubts(self) -> None:
        """Remove the files of uploads that came to no entry because the process died in between. For after a start."""
        gone = 0
        for attachment, conversation in self._blobs.doubts():
            try:
                if await self._is_linked(conversation, attachment):
                    await self._blobs.settle([attachment])
                else:
                    await self._blobs.drop(attachment)
                    gone += 1
            except LandlineError as error:
                _log.warning("a file may belong to nothing", conversation=conversation, reason=error.message)
        if gone:
            _log.info("files removed that no activity came to point at", files=gone)

    async def _is_linked(self, conversation: ConversationId, attachment: AttachmentId) -> bool:
        """Whether any entry of the conversation names it."""
        name, position, more = attachment.encode(), 0, True
        while more:
            try:
                page = await self._store.read_after(conversation, position, _PAGE, _PAGE_BYTES, for_stream=True)
            except UnknownConversation:
                return False
            if any(name in each.body for each in page.records if isinstance(each, Entry)):
                return True
            position, more = page.position, page.more
        return False

    # From bots

    async def attach(self, conversation: Conversation, body: bytes, deadline: float) -> AttachmentId:
        """Keep what the bot uploads; what it says about it afterwards is its own business (bot-side 3.6).

        Brief trouble of the disk is waited out, as for what a bot says, and so is one that is nearly full. Raises
        `RequestError`, `StoreUnavailable`.
        """
        # Megabytes of text: the loop has better things to do.
        uploaded = await asyncio.to_thread(attachments.from_bot, body)
        give_up = min(deadline, self._clock.monotonic() + self._store_wait_s)
        try:
            return await retry_while_unavailable(
                give_up, lambda: self._keep_upload(conversation, uploaded, deadline), _RETRY_S
            )
        except StoreUnavailable as error:
            if isinstance(error.__cause__, TooLittleSpace):
                raise error.__cause__ from None
            raise

    async def _keep_upload(self, conversation: Conversation, uploaded: BotUpload, deadline: float) -> AttachmentId:
        """A draft may hold a part of it when a write fails, so each attempt has one of its own."""
        draft = self._blobs.draft(conversation.id)
        known = Attachment(conversation.id, uploaded.name, uploaded.content_type, self._clock.now_ms())
        try:
            for view, content in uploaded.views.items():
                await draft.write(content, view)
            # Whoever has its id may use it where and when it likes: nobody could settle a doubt.
            await self._keep([(draft, known)], deadline, doubtful=False)
        except TooLittleSpace as error:  # as brief as a full disk, perhaps
            await self._blobs.discard([draft])
            raise StoreUnavailable from error
        except BaseException:
            await self._blobs.discard([draft])
            raise
        return draft.id

    async def _keep(self, drafts: list[tuple[Draft, Attachment]], deadline: float, *, doubtful: bool) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._blobs.keep(drafts, doubtful=doubtful)
        except TimeoutError as error:
            raise DeadlinePassed from error

    # Who fetches

    async def find(self, attachment: str, bot: Bot | None = None) -> Blob:
        """The bytes behind an id; the caller closes them. `bot`: only if they are in a conversation of that bot.

        Raises `UnknownAttachment`, also for what has expired.
        """
        blob = await self._blobs.find(AttachmentId(attachment))
        if blob is None:
            raise UnknownAttachment
        try:
            await self._check(blob.attachment, bot)
        except BaseException:
            await blob.close()
            raise
        return blob

    async def _check(self, attachment: Attachment, bot: Bot | None) -> None:
        expired_ms = self._expired_ms()
        if expired_ms is not None and attachment.made_ms < expired_ms:
            raise UnknownAttachment
        if bot is not None:
            conversation = await self._store.conversation(attachment.conversation)
            if conversation is None or conversation.bot_id != bot.id:
                raise UnknownAttachment

    def _expired_ms(self) -> int | None:
        """What was made before that time has expired."""
        return None if self._bounds.ttl_s is None else self._clock.now_ms() - int(self._bounds.ttl_s * 1000)

    async def sweep(self) -> None:
        """Remove what has expired, again and again, until cancelled. Returns at once where nothing expires."""
        while (expired_ms := self._expired_ms()) is not None:
            try:
                if gone := await self._blobs.expire(expired_ms):
                    _log.info("expired files removed", files=gone)
            except LandlineError as error:
                _log.warning("expired files could not be removed", reason=error.message)
            await asyncio.sleep(_SWEEP_S)


def _read(
    written: bytes | None, files: list[File], user_id: str | None, grant: Grant, conversation: ConversationId
) -> tuple[attachments.Message, activity.ClientActivity]:
    message = attachments.message(written, files, user_id)
    posted = activity.from_client_members(
        message.members,
        conversation=conversation,
        bot=grant.bot,
        bound=grant.user,
        may_use_dl=grant.may_claim_dl,
    )
    return message, posted
