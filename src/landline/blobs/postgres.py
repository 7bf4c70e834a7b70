"""Attachments in the database that several nodes share.

Theory of operation. An attachment is a row and chunks of 256 KiB. A draft's chunks are written as they come; `keep`
writes the rest and what is known of it in one transaction, for all drafts of an activity together. What may be taken up
is counted in a row for each conversation and each site, which every transaction that adds bytes updates: so uploads on
several nodes together stay within the bounds.

What is removed is gone for everybody at once, and its bytes some minutes later: a download that has begun on any node
can end. A draft that nobody has written to for an hour is one of a node that died.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from landline.blobs.totals import Bounds, blocks
from landline.core.attachments import ORIGINAL, Attachment, AttachmentId, View
from landline.core.log import ConversationId
from landline.errors import LandlineError, OutcomeUnknown, StoreUnavailable, TooMuchInConversation, TooMuchOfSite
from landline.ports import Clock, Draft

_PIECE_BYTES = 256 * 1024
_DIRECTORY, _NAME_BYTES = 20, 20
_ID = re.compile(r"[0-9a-f]{60}")
"""As ids of files are, so that attachments can move between stores."""

_SWEEP_S = 60.0
_GONE = "10 minutes"
_ABANDONED = "1 hour"
_DOUBTED = "10 minutes"

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class Connection(Protocol):
    """What is used of a connection to the database."""

    async def execute(self, query: str, *arguments: object) -> str:
        """Run it."""
        ...

    async def fetch(self, query: str, *arguments: object) -> Sequence[Any]:
        """Its rows."""
        ...

    async def fetchval(self, query: str, *arguments: object) -> Any:
        """The first value of its first row, or None."""
        ...


class Database(Protocol):
    """Whoever has the connections: the store."""

    async def read(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """What is read over a connection. Raises `StoreUnavailable`."""
        ...

    async def change(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """The same in a transaction. Raises `OutcomeUnknown` as well."""
        ...


class PostgresBlobs:
    """Implements `landline.ports.Blobs`."""

    def __init__(self, database: Database, clock: Clock, bounds: Bounds | None = None) -> None:
        """Touches nothing yet. How much disk is free is not known here: `free_floor_bytes` is not looked at."""
        self._database = database
        self._clock = clock
        self.bounds = bounds or Bounds()
        self._doubts: Sequence[tuple[AttachmentId, ConversationId]] = ()
        self._sweeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """As `Blobs.open`: drafts of living nodes stay."""

        async def read(connection: Connection) -> Sequence[Any]:
            return await connection.fetch(
                f"""
                SELECT id, conversation FROM landline.blobs
                WHERE doubtful AND NOT gone AND changed_at < now() - interval '{_DOUBTED}'
                """  # noqa: S608  # a constant of ours
            )

        self._doubts = [(AttachmentId(name), ConversationId(where)) for name, where in await self._database.read(read)]
        self._sweeping = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """As `Blobs.close`."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])

    async def _sweep(self) -> None:
        while True:
            try:
                while await self.change(_remove_slice):
                    pass
            except LandlineError as error:
                _log.debug("attachments that are gone could not be removed", reason=error.message)
            await asyncio.sleep(_SWEEP_S)

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What is read over a connection. Raises `StoreUnavailable`."""
        return await self._database.read(work)

    async def change(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The same in a transaction. What may have been stored is discarded by whoever fails, so it counts as not."""
        try:
            return await self._database.change(work)
        except OutcomeUnknown as error:
            raise StoreUnavailable from error

    def draft(self, conversation: ConversationId, site: str | None = None) -> PostgresDraft:
        """As `Blobs.draft`."""
        name = hashlib.sha256(conversation.encode()).hexdigest()[:_DIRECTORY] + secrets.token_hex(_NAME_BYTES)
        return PostgresDraft(self, AttachmentId(name), conversation, site)

    async def keep(self, drafts: Sequence[tuple[Draft, Attachment]], *, doubtful: bool = False) -> None:
        """As `Blobs.keep`: all of them or none."""
        ours = [(_ours(draft), attachment) for draft, attachment in drafts]
        now_ms = self._clock.now_ms()

        async def keep(connection: Connection) -> None:
            for draft, attachment in ours:
                await draft.finish(connection, attachment, now_ms, doubtful=doubtful)

        await self.change(keep)

    async def settle(self, attachments: Sequence[AttachmentId]) -> None:
        """As `Blobs.settle`."""
        try:
            await self.change(
                lambda connection: connection.execute(
                    "UPDATE landline.blobs SET doubtful = false WHERE id = ANY ($1)", list(attachments)
                )
            )
        except StoreUnavailable as error:
            _log.debug("attachments stay in doubt", reason=error.message)

    def doubts(self) -> Sequence[tuple[AttachmentId, ConversationId]]:
        """As `Blobs.doubts`."""
        return tuple(self._doubts)

    async def drop(self, attachment: AttachmentId) -> None:
        """As `Blobs.drop`."""
        await self._remove("id = ANY ($1)", [attachment])

    async def discard(self, drafts: Sequence[Draft]) -> None:
        """As `Blobs.discard`."""
        ours = [_ours(draft) for draft in drafts]
        await asyncio.shield(asyncio.ensure_future(self._discard(ours)))  # who discards is often being cancelled

    async def _discard(self, drafts: Sequence[PostgresDraft]) -> None:
        for draft in drafts:
            await draft.end()
        try:
            await self._remove("id = ANY ($1)", [draft.id for draft in drafts])
        except StoreUnavailable as error:
            _log.warning("what was discarded is removed later", reason=error.message)

    async def find(self, attachment: AttachmentId) -> PostgresBlob | None:
        """As `Blobs.find`."""
        if not _ID.fullmatch(attachment):
            return None

        async def read(connection: Connection) -> Sequence[Any]:
            return await connection.fetch(
                "SELECT blob, known FROM landline.blobs WHERE id = $1 AND kept_ms IS NOT NULL AND NOT gone", attachment
            )

        for number, known in await self.read(read):
            return PostgresBlob(self, number, msgspec.json.decode(known, type=Attachment))
        return None

    async def forget(self, conversation: ConversationId) -> None:
        """As `Blobs.forget`."""
        await self._remove("conversation = $1 AND kept_ms IS NOT NULL", conversation)

    async def expire(self, before_ms: int) -> int:
        """As `Blobs.expire`."""
        return await self._remove("kept_ms < $1", before_ms)

    async def _remove(self, which: str, argument: object) -> int:
        """Let these be gone; how many."""

        async def remove(connection: Connection) -> int:
            rows = await connection.fetch(
                f"""
                UPDATE landline.blobs SET gone = true, known = NULL, changed_at = now() WHERE {which} AND NOT gone
                RETURNING conversation, site, weight
                """,  # noqa: S608  # ours
                argument,
            )
            lighter: dict[str, int] = {}
            for conversation, site, weight in rows:
                for name in _names(conversation, site):
                    lighter[name] = lighter.get(name, 0) - weight
            for name in sorted(lighter):
                await _weigh(connection, name, lighter[name])
            return len(rows)

        return await self.change(remove)


async def _remove_slice(connection: Connection) -> bool:
    """Remove the bytes of some that are gone, or were begun by a node that died. True while there are more."""
    found = await connection.fetch(
        f"""
        SELECT blob, conversation, site, weight, gone FROM landline.blobs
        WHERE (gone AND changed_at < now() - interval '{_GONE}')
            OR (kept_ms IS NULL AND NOT gone AND changed_at < now() - interval '{_ABANDONED}')
        LIMIT 1 FOR UPDATE SKIP LOCKED
        """  # noqa: S608  # constants of ours
    )
    for number, conversation, site, weight, gone in found:
        if not gone:
            for name in sorted(_names(conversation, site)):
                await _weigh(connection, name, -weight)
        await connection.execute("DELETE FROM landline.chunks WHERE blob = $1", number)
        await connection.execute("DELETE FROM landline.blobs WHERE blob = $1", number)
    return bool(found)


def _names(conversation: str, site: str | None) -> Sequence[str]:
    """Whose weight an attachment is part of."""
    return [f"c:{conversation}"] if site is None else [f"c:{conversation}", f"s:{site}"]


async def _weigh(connection: Connection, name: str, more: int) -> int:
    """Add to a weight; what it is then."""
    bytes_now: int = await connection.fetchval(
        """
        INSERT INTO landline.weights AS w (name, bytes) VALUES ($1, $2)
        ON CONFLICT (name) DO UPDATE SET bytes = w.bytes + excluded.bytes RETURNING bytes
        """,
        name,
        more,
    )
    return bytes_now


class PostgresDraft:
    """Implements `landline.ports.Draft`."""

    def __init__(
        self, blobs: PostgresBlobs, attachment: AttachmentId, conversation: ConversationId, site: str | None
    ) -> None:
        self._id = attachment
        self._blobs = blobs
        self._conversation = conversation
        self._site = site
        self._number: int | None = None
        self._place = 0
        self._waiting = bytearray()
        self._sizes: dict[str, int] = {ORIGINAL: 0}
        self._weight = 0
        self._busy: asyncio.Future[None] | None = None

    @property
    def id(self) -> AttachmentId:
        """As `Draft.id`."""
        return self._id

    async def write(self, piece: bytes, view: str = ORIGINAL) -> None:
        """As `Draft.write`."""
        assert view not in self._sizes or view == list(self._sizes)[-1], "views come one after the other"
        self._sizes[view] = self._sizes.get(view, 0) + len(piece)
        self._waiting += piece
        if len(self._waiting) >= _PIECE_BYTES:
            self._busy = asyncio.ensure_future(self._flush())
            await asyncio.shield(self._busy)

    async def _flush(self) -> None:
        """Write whole chunks."""
        end = len(self._waiting) - len(self._waiting) % _PIECE_BYTES

        async def flush(connection: Connection) -> tuple[int, int]:
            number = await self._begun(connection)
            weight = await self._take(connection, number, sum(self._sizes.values()))
            for start in range(0, end, _PIECE_BYTES):
                place = self._place + start // _PIECE_BYTES
                await _write(connection, number, place, self._waiting[start : start + _PIECE_BYTES])
            return number, weight

        self._number, self._weight = await self._blobs.change(flush)
        self._place += end // _PIECE_BYTES
        del self._waiting[:end]

    async def _begun(self, connection: Connection) -> int:
        if self._number is not None:
            return self._number
        number: int = await connection.fetchval(
            "INSERT INTO landline.blobs (id, conversation, site) VALUES ($1, $2, $3) RETURNING blob",
            self._id,
            self._conversation,
            self._site,
        )
        return number

    async def _take(self, connection: Connection, number: int, size: int) -> int:
        """Have room for so many bytes in all; what they weigh."""
        more = blocks(size) - self._weight
        bounds = self._blobs.bounds
        # In one order, whoever writes: the conversation first.
        in_conversation = await _weigh(connection, f"c:{self._conversation}", more)
        if bounds.conversation_bytes and more and in_conversation > bounds.conversation_bytes:
            raise TooMuchInConversation
        if self._site is not None:
            of_site = await _weigh(connection, f"s:{self._site}", more)
            if bounds.site_bytes and more and of_site > bounds.site_bytes:
                raise TooMuchOfSite
        await connection.execute(
            "UPDATE landline.blobs SET weight = weight + $2, changed_at = now() WHERE blob = $1", number, more
        )
        return self._weight + more

    async def finish(self, connection: Connection, attachment: Attachment, now_ms: int, *, doubtful: bool) -> None:
        """Write what is left and what is known, as part of a transaction."""
        number = await self._begun(connection)
        views = tuple(View(view, size) for view, size in self._sizes.items())
        known = msgspec.json.encode(msgspec.structs.replace(attachment, views=views, site=self._site))
        await self._take(connection, number, sum(self._sizes.values()) + len(known))
        await _write(connection, number, self._place, self._waiting)
        await connection.execute(
            "UPDATE landline.blobs SET known = $2, kept_ms = $3, doubtful = $4 WHERE blob = $1",
            number,
            known,
            now_ms,
            doubtful,
        )

    async def end(self) -> None:
        """Wait for what is under way: it would bring back what is removed."""
        if self._busy is not None:
            await asyncio.wait([self._busy])
            if not self._busy.cancelled():
                self._busy.exception()  # whoever wrote has been told


async def _write(connection: Connection, number: int, place: int, chunk: bytearray) -> None:
    if chunk:
        await connection.execute(
            "INSERT INTO landline.chunks (blob, place, bytes) VALUES ($1, $2, $3)", number, place, bytes(chunk)
        )


class PostgresBlob:
    """Implements `landline.ports.Blob`."""

    def __init__(self, blobs: PostgresBlobs, number: int, attachment: Attachment) -> None:
        self.attachment = attachment
        self._blobs = blobs
        self._number = number

    async def read(self, view: str, start: int, size: int) -> AsyncGenerator[bytes, None]:
        """As `Blob.read`."""
        before = [each.id for each in self.attachment.views].index(view)
        start += sum(each.size for each in self.attachment.views[:before])
        while size:
            place, offset = divmod(start, _PIECE_BYTES)
            piece = await self._piece(place, offset, min(size, _PIECE_BYTES - offset))
            yield piece
            start, size = start + len(piece), size - len(piece)

    async def _piece(self, place: int, offset: int, size: int) -> bytes:
        async def read(connection: Connection) -> bytes | None:
            piece: bytes | None = await connection.fetchval(
                "SELECT substr(bytes, $3, $4) FROM landline.chunks WHERE blob = $1 AND place = $2",
                self._number,
                place,
                offset + 1,
                size,
            )
            return piece

        piece = await self._blobs.read(read)
        if not piece:
            raise StoreUnavailable("The attachment was removed while it was being read")
        return piece

    async def close(self) -> None:
        """As `Blob.close`."""


def _ours(draft: Draft) -> PostgresDraft:
    assert isinstance(draft, PostgresDraft)
    return draft
