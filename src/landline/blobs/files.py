"""Attachments as files in the data directory.

Theory of operation. An attachment is one file: its views one after the other, then what is known of it as JSON, then
eight bytes that say how long that JSON is and that this is such a file. Being one file, it is there or it is not; no
half of it can be missing. It is written aside, synced, renamed to where it will be found, and the directory is synced.
As long as it is in doubt whether an entry points at it, it has both names; so whoever opens the directory after a crash
finds aside what is to be looked into, and need not look through everything.

The files of a conversation share a directory, whose name is a digest of the conversation and the beginning of each of
their ids: so an id leads to its file without an index, and a conversation is forgotten by removing a directory. All
names are lower-case hexadecimal, since some file systems do not tell `a` from `A`. A file's name begins with what names
the process that wrote it, so that what is counted after a start can be told from what came meanwhile (see `totals`).

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
import shutil
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
import structlog

from landline.blobs.totals import Bounds, Totals, blocks
from landline.core.attachments import ORIGINAL, Attachment, AttachmentId, View
from landline.core.log import ConversationId
from landline.durable import sync
from landline.errors import DataDirectoryError, LandlineError, StoreUnavailable, TooLittleSpace
from landline.ports import Draft

_PIECE_BYTES = 256 * 1024
"""What an upload or a download holds in memory, and writes or reads in one go."""

_THREADS = 4
_DIRECTORY = 20
"""How many digits of an id name the directory: 80 bits, so that no two conversations share one."""
_ID = re.compile(r"[0-9a-f]{60}")
_PROCESS_BYTES, _NAME_BYTES = 4, 16
_COUNT_WAIT_S = 5.0
"""How long an upload waits until sites are counted. What is found later counts then."""
_BEHIND_ALL = "g"
"""Comes after every name."""
_MARK = b"LLA1"
_TAIL_BYTES = len(_MARK) + 4

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class FileBlobs:
    """Implements `landline.ports.Blobs` below one directory, which one process owns."""

    def __init__(self, path: Path, bounds: Bounds | None = None) -> None:
        """Touches nothing yet."""
        self.totals = Totals(bounds or Bounds())
        self._bounds = bounds or Bounds()
        self._process = secrets.token_hex(_PROCESS_BYTES)
        self._counted_to = ""  # the last directory whose older files count for their sites
        self._counting: asyncio.Task[None] | None = None
        self._path = path
        self._aside = path / "aside"
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="landline-blobs")
        self._directories = threading.Lock()
        """Held while a directory is made and filled, counted, or emptied: what is there and what counts are one."""
        self._discarding: set[asyncio.Task[None]] = set()
        self._doubts: list[tuple[AttachmentId, ConversationId]] = []

    async def open(self) -> None:
        """As `Blobs.open`."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._prepare)
        if self._bounds.site_bytes:
            self._counting = asyncio.create_task(self._count_sites())

    def _prepare(self) -> None:
        try:
            for path in (self._path, self._aside):
                path.mkdir(mode=0o700, exist_ok=True)
            sync(self._path.parent)
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
        if self._counting is not None:
            self._counting.cancel()
        await asyncio.to_thread(self._threads.shutdown)

    # What counts

    async def _count_sites(self) -> None:
        """Find out what earlier processes have stored, by site."""
        try:
            for shard in await self.run(lambda: sorted(self._path.glob("[0-9a-f][0-9a-f]"))):
                await self.run(partial(self._count_sites_in, shard))
            self._counted_to = _BEHIND_ALL
        except LandlineError as error:
            _log.warning("some uploads were not counted for their sites", reason=error.message)

    def _count_sites_in(self, shard: Path) -> None:
        for directory in sorted(shard.iterdir()):
            with self._directories:
                for file in directory.iterdir() if directory.exists() else ():
                    if not file.name.startswith(self._process):
                        size, site = _weight(file)
                        if site is not None:
                            self.totals.found(site, blocks(size))
                self._counted_to = directory.name

    async def sites_counted(self) -> None:
        """Return when they are, or when that takes long."""
        if self._counting is not None and not self._counting.done():
            await asyncio.wait((self._counting,), timeout=_COUNT_WAIT_S)

    def count(self, directory: str) -> None:
        """What is stored in that directory. Runs on a thread."""
        path = self._directory(directory)
        with self._directories:
            files = path.iterdir() if path.exists() else ()
            self.totals.count(directory, sum(blocks(file.stat().st_size) for file in files))

    def check_space(self, more: int) -> None:
        """Raises `TooLittleSpace` where so many bytes more would leave too few free. Runs on a thread."""
        floor = self._bounds.free_floor_bytes
        if floor and shutil.disk_usage(self._path).free - more < floor:
            raise TooLittleSpace

    # As the port says

    def draft(self, conversation: ConversationId, site: str | None = None) -> FileDraft:
        """As `Blobs.draft`."""
        name = self._process + secrets.token_hex(_NAME_BYTES)
        return FileDraft(self, AttachmentId(_directory(conversation) + name), self._aside / name, site)

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
            places = [(draft, self._place(draft.id)) for draft, _ in drafts]
            for directory in {place.parent for _, place in places}:
                self._make(directory)
            for draft, place in places:
                if not (doubtful and _has_two_names(draft.aside, place)):
                    draft.aside.rename(place)
                draft.is_kept = True
                draft.end()
        for directory in {place.parent for _, place in places}:
            sync(directory)

    def _make(self, directory: Path) -> None:
        for path in (directory.parent, directory):
            if not path.exists():
                path.mkdir(mode=0o700)
                sync(path.parent)

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
        with self._directories:
            self._remove_counted(place)

    def _remove_counted(self, place: Path) -> None:
        """By both names, if it has two; it counts no longer. For who holds the lock."""
        with contextlib.suppress(FileNotFoundError):
            size, site = _weight(place) if self._bounds.site_bytes else (place.stat().st_size, None)
            place.unlink()
            counts = place.name.startswith(self._process) or place.parent.name <= self._counted_to
            self.totals.take(place.parent.name, site if counts else None, -blocks(size))
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
            if draft.is_kept:
                self._remove(self._place(draft.id))
            else:
                draft.aside.unlink(missing_ok=True)
                self._place(draft.id).unlink(missing_ok=True)
                draft.give_back()

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
                    self._remove_counted(path)
                directory.rmdir()
                sync(directory.parent)

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

    def __init__(self, blobs: FileBlobs, attachment: AttachmentId, aside: Path, site: str | None) -> None:
        self._id = attachment
        self.aside = aside
        self.is_kept = False
        self._site = site
        self._reserves = False
        self._taken = 0
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
        if not self._reserves:
            await self._begin()
        self._take(sum(self._sizes.values()))
        self._waiting += piece
        if len(self._waiting) >= _PIECE_BYTES:
            self.busy = self._blobs.run(self._flush)
            await asyncio.shield(self.busy)

    # What it takes up, against what may be taken up.

    @property
    def _directory(self) -> str:
        return self._id[:_DIRECTORY]

    async def _begin(self) -> None:
        if self._site is not None:
            await self._blobs.sites_counted()
        while not self._blobs.totals.begin(self._directory):
            await self._blobs.run(lambda: self._blobs.count(self._directory))
        self._reserves = True

    def _take(self, size: int) -> None:
        """Have room for so many bytes in all."""
        more = blocks(size) - self._taken
        if more:
            self._blobs.totals.take(self._directory, self._site, more)
            self._taken += more

    def give_back(self) -> None:
        """It was not kept."""
        taken, self._taken = self._taken, 0
        if taken:
            self._blobs.totals.take(self._directory, self._site, -taken)
        self.end()

    def end(self) -> None:
        """It reserves nothing more."""
        if self._reserves:
            self._reserves = False
            self._blobs.totals.end(self._directory)

    # What runs on a thread

    def _flush(self) -> None:
        self._blobs.check_space(len(self._waiting))
        waiting, self._waiting = self._waiting, bytearray()
        if self._file is None:
            self._file = _new(self.aside)
        _write(self._file, waiting)

    def finish(self, attachment: Attachment) -> None:
        """Write down what is known, and make all of it durable. Runs on a thread."""
        views = tuple(View(view, size) for view, size in self._sizes.items())
        known = msgspec.json.encode(msgspec.structs.replace(attachment, views=views, site=self._site))
        self._waiting += b"".join((known, len(known).to_bytes(4), _MARK))
        while not self._reserves:  # nothing was written, which has to be found somewhere all the same
            self._reserves = self._blobs.totals.begin(self._directory)
            if not self._reserves:
                self._blobs.count(self._directory)
        self._take(sum(self._sizes.values()) + len(known) + _TAIL_BYTES)
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


def _weight(path: Path) -> tuple[int, str | None]:
    """The size of an attachment's file, and the site that it came by."""
    with path.open("rb") as file:
        try:
            site = _what_is_known(file).site
        except OSError:
            site = None
        return os.fstat(file.fileno()).st_size, site


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
