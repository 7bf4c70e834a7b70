"""The directory that one server process owns: made private, and locked for as long as the process lives."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import sys
from pathlib import Path

from landline.errors import DataDirectoryError, DirectoryInUse

if sys.platform == "win32":
    import msvcrt

    def _others_may(path: Path) -> int:
        return 0  # what its owner allows whom stands elsewhere there

    def _others_may_rename_in(path: Path) -> bool:
        return False

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl
    import grp
    import pwd

    def _others_may(path: Path) -> int:
        """The permissions, as in 0o7, that somebody else has. Raises `DataDirectoryError` where it is theirs."""
        found, we = path.stat(), os.geteuid()
        if found.st_uid not in (we, 0) and we != 0:
            raise DataDirectoryError(f"{path} belongs to another user: sudo chown -R {we} {shlex.quote(str(path))}")
        group, rest = found.st_mode >> 3 & 0o7, found.st_mode & 0o7
        if found.st_uid != we and found.st_gid in (os.getegid(), *os.getgroups()):
            return rest  # it is by its group that we may write there: so volumes are mounted in a cluster
        return rest if _is_ours_alone(found.st_gid) else rest | group

    def _others_may_rename_in(path: Path) -> bool:
        """Whether somebody else, besides root, may rename what is ours in this directory."""
        found = path.stat()
        if found.st_uid not in (os.geteuid(), 0):
            return True
        writable = bool((found.st_mode | (0 if _is_ours_alone(found.st_gid) else found.st_mode >> 3)) & _WRITE)
        return writable and not found.st_mode & stat.S_ISVTX

    def _is_ours_alone(group_id: int) -> bool:
        """Whether it is the group of this user that has nobody else in it, as many systems make one for each user."""
        try:
            user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(group_id)
        except KeyError:
            return False
        return user.pw_gid == group_id and user.pw_name == group.gr_name and set(group.gr_mem) <= {user.pw_name}

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCK_FILE = "lock"
STORE_FILE = "landline.db"
ADMIN_SECRET_FILE = "admin-secret"  # noqa: S105  # a name
ADDRESS_FILE = "address"
"""Files of a data directory: its lock, the conversations, what the admin API is asked with, and where."""
_WRITE, _LOOK = 0o2, 0o5


class Directory:
    """A data directory. The lock is the operating system's: it ends with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        """Touches nothing yet."""
        self.path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Make the directory (mode 0700) where there is none, and lock it.

        One that exists keeps its mode: it is somebody's decision, and everything written here is private by itself.
        Raises `DataDirectoryError`, also where other users may write in it: they could put a store of theirs, or the
        credential of operators, in the place of ours.
        """
        try:
            if not self.path.exists():
                make(self.path)
            if _others_may(self.path) & _WRITE:
                named = shlex.quote(str(self.path))
                raise DataDirectoryError(f"{self.path} can be written by other users: chmod go-w {named}")
            self._descriptor = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataDirectoryError(f"{self.path}: {error.strerror}") from error
        try:
            _lock(self._descriptor)
        except OSError as error:
            self.release()
            raise DirectoryInUse(f"{self.path} is in use by another process") from error

    def open_to_others(self) -> str | None:
        """The command that keeps other users from looking in; None where they cannot. Raises `DataDirectoryError`."""
        if not _others_may(self.path) & _LOOK:
            return None
        return f"chmod -R go= {shlex.quote(str(self.path))}"

    def replaceable_in(self) -> Path | None:
        """The nearest directory above in which another user may put a directory of theirs in the place of ours, or of
        one that leads to it; None where there is none. Raises `DataDirectoryError`."""
        try:
            return next((each for each in self.path.resolve().parents if _others_may_rename_in(each)), None)
        except OSError as error:
            raise DataDirectoryError(f"{self.path}: {error.strerror}") from error

    def private_file(self, name: str) -> Path:
        """The path of a file in here with mode 0600, made if it is not there, and its name durable."""
        path = self.path / name
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            with contextlib.suppress(PermissionError):  # of a file of another user, which we may write all the same
                path.chmod(0o600)
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


def make(path: Path) -> None:
    """Make a directory that others cannot look into, and durable; where its parents are not there, make them such that
    nobody else can write in them, whatever the umask is. Raises `OSError`."""
    for each in reversed([each for each in path.parents if not each.exists()]):
        each.mkdir(mode=0o755)
        sync(each.parent)
    path.mkdir(mode=0o700)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file durable, or the names in a directory. Windows has no such call for what is only read."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
