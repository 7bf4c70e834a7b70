"""A disk that a test can fill, stall, break, and cut from its power, as a VFS between SQLite and the file system.

What SQLite writes goes to real files, which it also reads. Beside that the disk keeps a history: each write, each sync,
and whatever the test notes in between. A power cut is a point in that history: what was synced before it is there;
of what was not, each 512-byte sector of each write is there or not, as the dice say. So one run has as many power cuts
as it has steps, and each is a seed that can be repeated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import apsw
import msgspec

from landline.stores.sqlite import layout

SECTOR = 512
_names = count()


class Wrote(msgspec.Struct):
    """Not on the disk until a sync of the same file."""

    file: str
    offset: int
    data: bytes


class Truncated(msgspec.Struct):
    """Not on the disk until a sync of the same file."""

    file: str
    size: int


class Synced(msgspec.Struct):
    """Everything that was written to this file is on the disk. The first sync of a new file syncs its directory too
    (SQLite's `UNIXFILE_DIRSYNC`): names that were made or deleted are then as they are."""

    file: str


class Deleted(msgspec.Struct):
    """The name is gone; for good once the directory was synced."""

    file: str
    synced: bool


class Noted(msgspec.Struct):
    """What the test wants to find again."""

    note: Any


Event = Wrote | Truncated | Synced | Deleted | Noted


class Disk(apsw.VFS):
    """All files of one store. Registered under a name of its own for as long as it lives."""

    def __init__(self, history: list[Event] | None = None) -> None:
        """With a `history`, a disk that goes on where another one was: the files must be those of `as_written`."""
        self.name = f"disk-{next(_names)}"
        self.history: list[Event] = history or []
        self.trouble: Callable[[str, str], None] = lambda action, file: None
        """Called before each "write", "truncate", "sync" and "read" with the name of the file; may raise or wait."""
        super().__init__(self.name, "")

    def connect(self, path: Path) -> apsw.Connection:
        """What a store is given to make its connections with."""
        return layout.connect(path, self.name)

    def connect_carelessly(self, path: Path) -> apsw.Connection:
        """The same, without a sync at each commit."""
        connection = self.connect(path)
        connection.pragma("synchronous", "normal")
        return connection

    def note(self, note: object) -> None:
        """Remember that this happened now."""
        self.history.append(Noted(note))

    def syncs(self) -> int:
        """How often something was synced."""
        return sum(isinstance(event, Synced) for event in self.history)

    # What SQLite calls.

    def xOpen(self, name: Any, flags: list[int]) -> _File:
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.history.append(Deleted(Path(filename).name, syncdir))


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._file = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "temporary").name
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.trouble("read", self._file)
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:
        self._disk.trouble("write", self._file)
        super().xWrite(data, offset)
        self._disk.history.append(Wrote(self._file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        self._disk.trouble("truncate", self._file)
        super().xTruncate(newsize)
        self._disk.history.append(Truncated(self._file, newsize))

    def xSync(self, flags: int) -> None:
        self._disk.trouble("sync", self._file)
        # No real sync: the files are looked at only while the machine runs.
        self._disk.history.append(Synced(self._file))


class _Platter:
    """One file as it may be found after a cut. The store itself makes the database's name durable."""

    def __init__(self, name: str) -> None:
        self.content = bytearray()
        self.waiting: list[Wrote | Truncated] = []
        self.named = not name.endswith(("-wal", "-journal"))

    def apply(self, event: Wrote | Truncated, kept: Callable[[], bool]) -> None:
        if isinstance(event, Truncated):
            if kept():
                del self.content[event.size :]
                self.content.extend(bytes(event.size - len(self.content)))
            return
        start, end = event.offset, event.offset + len(event.data)
        while start < end:
            until = min(end, (start // SECTOR + 1) * SECTOR)
            if kept():
                self.content.extend(bytes(max(0, until - len(self.content))))
                self.content[start:until] = event.data[start - event.offset : until - event.offset]
            start = until

    def apply_all(self) -> None:
        for event in self.waiting:
            self.apply(event, lambda: True)
        self.waiting.clear()


class _Found:
    """The directory after a history: files, and files that were deleted but may come back."""

    def __init__(self, history: list[Event]) -> None:
        self.files: dict[str, _Platter] = {}
        self.ghosts: dict[str, _Platter] = {}
        for event in history:
            if isinstance(event, Deleted):
                self._delete(event)
            elif isinstance(event, Synced):
                self._sync(self._file(event.file))
            elif not isinstance(event, Noted):
                self._file(event.file).waiting.append(event)

    def _file(self, name: str) -> _Platter:
        return self.files.setdefault(name, _Platter(name))

    def _delete(self, event: Deleted) -> None:
        gone = self.files.pop(event.file, None)
        if event.synced:
            self.ghosts.clear()
        elif gone is not None and gone.named:
            self.ghosts[event.file] = gone

    def _sync(self, file: _Platter) -> None:
        file.apply_all()
        if not file.named:
            file.named = True
            self.ghosts.clear()


def after_power_cut(history: list[Event], dice: Random) -> dict[str, bytes]:
    """The files that are found after a cut at the end of `history`. Each cut has a leaning of its own: nearly all of
    what was not synced may be there, or nearly nothing."""
    leaning = dice.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    torn = dice.random() < 0.5
    found = _Found(history)
    there = {name: file for name, file in found.files.items() if file.named or dice.random() < leaning}
    for name, ghost in found.ghosts.items():
        if dice.random() < 0.5:
            there.setdefault(name, ghost)
    for file in there.values():
        for event in file.waiting:
            whole = dice.random() < leaning
            file.apply(event, (lambda: dice.random() < leaning) if torn else partial(bool, whole))
    return {name: bytes(file.content) for name, file in there.items()}


def as_written(history: list[Event]) -> dict[str, bytes]:
    """The files at the end of `history` where only the process died: everything that was written is there."""
    files = _Found(history).files
    for file in files.values():
        file.apply_all()
    return {name: bytes(file.content) for name, file in files.items()}


def as_synced(history: list[Event]) -> dict[str, bytes]:
    """The files after a cut at the end of `history` where nothing is there but what was synced."""
    return {name: bytes(file.content) for name, file in _Found(history).files.items() if file.named}


def lay_out(files: dict[str, bytes], directory: Path) -> None:
    """Put `files` into a new `directory`."""
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)


class Gate:
    """A `Disk.trouble` that makes one kind of action wait: a disk that has stalled."""

    def __init__(self, action: str) -> None:
        self._action = action
        self._open = threading.Event()
        self._failure: int | None = None
        self.reached = threading.Event()
        """Somebody stands before it."""

    def __call__(self, action: str, file: str) -> None:
        if action == self._action:
            self.reached.set()
            self._open.wait(30)
            if self._failure is not None:
                raise apsw.exception_for(self._failure)

    def open(self, failure: int | None = None) -> None:
        """Let everything through from now on, or let it fail with this result of SQLite's."""
        self._failure = failure
        self._open.set()


def breaks(action: str, result: int, file: str = "") -> Callable[[str, str], None]:
    """A `Disk.trouble`: every `action` on a file whose name ends with `file` fails with this result of SQLite's."""

    def trouble(attempted: str, name: str) -> None:
        if attempted == action and name.endswith(file):
            raise apsw.exception_for(result)

    return trouble
