"""Attachments as files in the data directory.

Theory of operation. An attachment is one file: its views one after the other, then what is known of it as JSON, then
eight bytes that say how long that JSON is and that this is such a file. Being one file, it is there or it is not; no
half of it can be missing. It is written aside, synced, renamed to where it will be found, and the directory is synced.
As long as it is in doubt whether an entry points at it, it has both names; so whoever opens the directory after a crash
finds aside what is to be looked into, and need not look through everything.

The files of a conversation share a directory, whose name is a digest of the conversation and the beginning of each of
their ids: so an id leads to its file without an index, and a conversation is forgotten by removing a directory. All
names are lower-case hexadecimal, since some file systems do not tell `a` from `A`.

Nothing here runs on the event loop but the bookkeeping; a few threads of our own do the rest, so that a slow disk does
not hold up whatever else uses the loop's threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
import structlog

from landline.core.attachments import ORIGINAL, Attachment, AttachmentId, View
from landline.core.log import ConversationId
from landline.errors import DataDirectoryError, StoreUnavailable
from landline.ports import Draft

_PIECE_BYTES = 256 * 1024
"""What an upload or a download holds in memory, and writes or reads in one go."""

_THREADS = 4
_DIRECTORY = 20
"""How many digits of an id name the directory: 80 bits, so that no two conversations share one."""
_ID = re.compile(r"[0-9a-f]{60}")
_MARK = b"LLA1"
_TAIL_BYTES = len(_MARK) + 4

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class FileBlobs:
    """Implements `landline.ports.Blobs` below one directory, which one process owns."""

    def __init__(self, path: Path) -> None:
        """Touches nothing yet."""
        self._path = path
        self._aside = path / "aside"
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="landline-blobs")
        self._directories = threading.Lock()
        """Held while a directory is made and filled, or removed because it is empty."""
        self._discarding: set[asyncio.Task[None]] = set()
        self._doubts: list[tuple[AttachmentId, ConversationId]] = []

    async def open(self) -> None:
        """As `Blobs.open`."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._prepare)

    def _prepare(self) -> None:
        try:
            for path in (self._path, self._aside):
                path.mkdir(mode=0o700, exist_ok=True)
            _sync(self._path.parent)
            for left in self._aside.iterdir():
                if not self._is_doubtful(left):
                    left.unlink()
        except OSError as error:
            raise DataDirectoryError(f"{self._path}: {error.strerror}") from error

    def _is_doubtful(self, left: Path) -> bool:
        """Whether what an earlier process left aside was kept, too. Then it is remembered."""
        if left.stat().st_nlink == 1:
            return False
        try:
            with left.open("rb") as file:
                conversation = _what_is_known(file).conversation
        except OSError:
            return False
        self._doubts.append((AttachmentId(_directory(conversation) + left.name), conversation))
        return True

    async def close(self) -> None:
        """As `Blobs.close`."""
        await asyncio.to_thread(self._threads.shutdown)

    def draft(self, conversation: ConversationId) -> FileDraft:
        """As `Blobs.draft`."""
        name = secrets.token_hex(20)
        return FileDraft(self, AttachmentId(_directory(conversation) + name), self._aside / name)

    async def keep(self, drafts: Sequence[tuple[Draft, Attachment]], *, doubtful: bool = False) -> None:
        """As `Blobs.keep`."""
        ours = [(_ours(draft), attachment) for draft, attachment in drafts]
        keeping = self.run(lambda: self._keep(ours, doubtful))
        for draft, _ in ours:
            draft.busy = keeping
        await asyncio.shield(keeping)

    def _keep(self, drafts: Sequence[tuple[FileDraft, Attachment]], doubtful: bool) -> None:
        for draft, attachment in drafts:
            draft.finish(attachment)
        with self._directories:
            places = {draft.aside: self._place(draft.id) for draft, _ in drafts}
            for directory in {place.parent for place in places.values()}:
                self._make(directory)
            for aside, place in places.items():
                if not (doubtful and _has_two_names(aside, place)):
                    aside.rename(place)
        for directory in {place.parent for place in places.values()}:
            _sync(directory)

    def _make(self, directory: Path) -> None:
        for path in (directory.parent, directory):
            if not path.exists():
                path.mkdir(mode=0o700)
                _sync(path.parent)

    async def settle(self, attachments: Sequence[AttachmentId]) -> None:
        """As `Blobs.settle`."""
        # Not synced: after a power cut it may be in doubt again, and is found to be pointed at.
        with contextlib.suppress(StoreUnavailable):
            await self.run(lambda: self._settle(attachments))

    def _settle(self, attachments: Sequence[AttachmentId]) -> None:
        for attachment in attachments:
            (self._aside / attachment[_DIRECTORY:]).unlink(missing_ok=True)

    def doubts(self) -> Sequence[tuple[AttachmentId, ConversationId]]:
        """As `Blobs.doubts`."""
        return tuple(self._doubts)

    async def drop(self, attachment: AttachmentId) -> None:
        """As `Blobs.drop`."""
        await self.run(lambda: self._remove(self._place(attachment)))

    def _remove(self, place: Path) -> None:
        """By both names, if it has two."""
        place.unlink(missing_ok=True)
        (self._aside / place.name).unlink(missing_ok=True)

    async def discard(self, drafts: Sequence[Draft]) -> None:
        """As `Blobs.discard`."""
        task = asyncio.get_running_loop().create_task(self._discard_when_idle([_ours(draft) for draft in drafts]))
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)
        await asyncio.shield(task)  # who discards is often being cancelled

    async def _discard_when_idle(self, drafts: Sequence[FileDraft]) -> None:
        busy = {draft.busy for draft in drafts if draft.busy is not None}
        if busy:
            # What was cancelled goes on in its thread, and would bring back what is removed here.
            await asyncio.wait(busy)
        with contextlib.suppress(StoreUnavailable):
            await self.run(lambda: self._discard(drafts))

    def _discard(self, drafts: Sequence[FileDraft]) -> None:
        for draft in drafts:
            draft.close()
            draft.aside.unlink(missing_ok=True)
            self._place(draft.id).unlink(missing_ok=True)

    async def find(self, attachment: AttachmentId) -> FileBlob | None:
        """As `Blobs.find`."""
        if not _ID.fullmatch(attachment):
            return None
        return await self.run(lambda: self._find(attachment))

    def _find(self, attachment: AttachmentId) -> FileBlob | None:
        try:
            file = self._place(attachment).open("rb")
        except FileNotFoundError:
            return None
        try:
            return FileBlob(self, file, _what_is_known(file))
        except BaseException:
            file.close()
            raise

    async def forget(self, conversation: ConversationId) -> None:
        """As `Blobs.forget`."""
        await self.run(lambda: self._forget(self._directory(_directory(conversation))))

    def _forget(self, directory: Path) -> None:
        with self._directories:
            if directory.exists():
                for path in directory.iterdir():
                    self._remove(path)
                directory.rmdir()
                _sync(directory.parent)

    async def expire(self, before_ms: int) -> int:
        """As `Blobs.expire`."""
        return await self.run(lambda: self._expire(before_ms / 1000))

    def _expire(self, before_s: float) -> int:
        gone = 0
        for directory in self._path.glob("[0-9a-f][0-9a-f]/*"):
            with contextlib.suppress(FileNotFoundError):  # forgotten meanwhile
                gone += self._expire_in(directory, before_s)
        return gone

    def _expire_in(self, directory: Path, before_s: float) -> int:
        files = list(directory.iterdir())
        old = [file for file in files if file.stat().st_mtime < before_s]
        for file in old:
            self._remove(file)
        if len(old) == len(files):
            # Unless somebody put something in meanwhile: then it is not empty, and stays.
            with self._directories, contextlib.suppress(OSError):
                directory.rmdir()
        return len(old)

    def _directory(self, name: str) -> Path:
        return self._path / name[:2] / name

    def _place(self, attachment: AttachmentId) -> Path:
        return self._directory(attachment[:_DIRECTORY]) / attachment[_DIRECTORY:]

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have one of the threads do it. What the disk refuses becomes `StoreUnavailable`."""

        def guarded() -> T:
            try:
                return work()
            except OSError as error:
                _log.error("attachments cannot be stored or read", error=str(error))
                raise StoreUnavailable from error

        try:
            return asyncio.get_running_loop().run_in_executor(self._threads, guarded)
        except RuntimeError as error:  # what an executor says that was shut down
            raise StoreUnavailable("Storage is closed; nothing was stored", retry=False) from error


class FileDraft:
    """Implements `landline.ports.Draft`: a file that nobody can find yet."""

    def __init__(self, blobs: FileBlobs, attachment: AttachmentId, aside: Path) -> None:
        self._id = attachment
        self.aside = aside
        self.busy: asyncio.Future[None] | None = None
        """What a thread is doing with it, or did last."""
        self._blobs = blobs
        self._file: BinaryIO | None = None
        self._waiting = bytearray()
        self._sizes: dict[str, int] = {ORIGINAL: 0}

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
            self.busy = self._blobs.run(self._flush)
            await asyncio.shield(self.busy)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, bytearray()
        if self._file is None:
            self._file = _new(self.aside)
        _write(self._file, waiting)

    def finish(self, attachment: Attachment) -> None:
        """Write down what is known, and make all of it durable. Runs on a thread."""
        views = tuple(View(view, size) for view, size in self._sizes.items())
        known = msgspec.json.encode(msgspec.structs.replace(attachment, views=views))
        self._waiting += b"".join((known, len(known).to_bytes(4), _MARK))
        self._flush()
        assert self._file is not None
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Let go of the file. Runs on a thread."""
        if self._file is not None:
            self._file.close()


class FileBlob:
    """Implements `landline.ports.Blob`."""

    def __init__(self, blobs: FileBlobs, file: BinaryIO, attachment: Attachment) -> None:
        self.attachment = attachment
        self._blobs = blobs
        self._file = file

    async def read(self, view: str, start: int, size: int) -> AsyncGenerator[bytes, None]:
        """As `Blob.read`."""
        before = [each.id for each in self.attachment.views].index(view)
        start += sum(each.size for each in self.attachment.views[:before])
        while size:
            piece = await self._blobs.run(partial(self._read, start, min(size, _PIECE_BYTES)))
            yield piece
            start, size = start + len(piece), size - len(piece)

    def _read(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        piece = self._file.read(size)
        if not piece:
            raise OSError("a file is shorter than it says")
        return piece

    async def close(self) -> None:
        """As `Blob.close`."""
        self._file.close()


def _ours(draft: Draft) -> FileDraft:
    assert isinstance(draft, FileDraft)
    return draft


def _directory(conversation: ConversationId) -> str:
    return hashlib.sha256(conversation.encode()).hexdigest()[:_DIRECTORY]


def _what_is_known(file: BinaryIO) -> Attachment:
    """What stands at the end of an attachment's file."""
    end = file.seek(-_TAIL_BYTES, os.SEEK_END)
    tail = file.read(_TAIL_BYTES)
    size = int.from_bytes(tail[:4])
    if tail[4:] != _MARK or size > end:
        raise OSError("a file is no attachment")
    file.seek(end - size)
    try:
        return msgspec.json.decode(file.read(size), type=Attachment)
    except msgspec.DecodeError as error:
        raise OSError("a file is no attachment") from error


def _new(path: Path) -> BinaryIO:
    """A file that was not there, for its owner only."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return open(os.open(path, flags, 0o600), "wb", buffering=0)  # noqa: PTH123  # a descriptor has no path


def _write(file: BinaryIO, data: bytearray) -> None:
    """All of it: one call may write less."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _has_two_names(aside: Path, place: Path) -> bool:
    """Give the file aside a second name; False where the file system knows no such thing, and nobody will doubt."""
    try:
        place.hardlink_to(aside)
    except OSError:
        return False
    return True


def _sync(directory: Path) -> None:
    """Make the names in `directory` durable. Windows has no such call, and needs none."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
