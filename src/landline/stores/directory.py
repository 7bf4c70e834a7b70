"""The directory that one server process owns: made private, and locked for as long as the process lives."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from landline.errors import DataDirectoryError, DirectoryInUse

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCK_FILE = "lock"
STORE_FILE = "landline.db"
ADMIN_SECRET_FILE = "admin-secret"  # noqa: S105  # a name
ADDRESS_FILE = "address"
"""Files of a data directory: its lock, the conversations, what the admin API is asked with, and where."""


class Directory:
    """A data directory. The lock is the operating system's: it ends with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        """Touches nothing yet."""
        self.path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Make the directory (mode 0700) where there is none, and lock it.

        One that exists keeps its mode: it is somebody's decision, and everything written here is private by itself.
        Raises `DataDirectoryError`.
        """
        try:
            made = [path for path in (self.path, *self.path.parents) if not path.exists()]
            if made:
                self.path.mkdir(mode=0o700, parents=True)
                for path in made:
                    sync(path.parent)
            self._descriptor = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataDirectoryError(f"{self.path}: {error.strerror}") from error
        try:
            _lock(self._descriptor)
        except OSError as error:
            self.release()
            raise DirectoryInUse(f"{self.path} is in use by another process") from error

    def private_file(self, name: str) -> Path:
        """The path of a file in here; made with mode 0600 if it is not there, and its name durable."""
        path = self.path / name
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            sync(self.path)
        except OSError as error:
            raise DataDirectoryError(f"{path}: {error.strerror}") from error
        return path

    def write(self, name: str, text: str) -> Path:
        """Keep `text` in a private file, durably. Raises `DataDirectoryError`."""
        path = self.private_file(name)
        try:
            with path.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataDirectoryError(f"{path}: {error.strerror}") from error
        return path

    def read(self, name: str) -> str | None:
        """What stands in such a file; None where there is none, or nothing in it. Needs no lock. Raises
        `DataDirectoryError`."""
        path = self.path / name
        try:
            return path.read_text().strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise DataDirectoryError(f"{path}: {getattr(error, 'strerror', 'is not text')}") from error

    def remove(self, name: str) -> None:
        """Take such a file away, if it is there."""
        with contextlib.suppress(OSError):
            (self.path / name).unlink()

    def release(self) -> None:
        """Let another process have it. May be repeated."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def sync(path: Path) -> None:
    """Make a file durable, or the names in a directory. Windows has no such call for what is only read."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
