"""A real disk that is really full, and has room again when a test says so."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from types import TracebackType

import pytest

_LIBC = ctypes.CDLL(None, use_errno=True)
_DETACH = 2
_BLOCK = bytes(64 * 1024)


class SmallDisk:
    """`with SmallDisk(tmp_path / "disk") as disk:` is an empty file system of `mib` MiB at `disk.path`, in memory.

    Skips the test where this process may not mount. `fill` takes up every free byte; what files hold already they keep,
    so a log may go on for as long as it needs no more room than it has.
    """

    def __init__(self, path: Path, mib: int = 16) -> None:
        self.path = path
        self._mib = mib
        self._ballast = path / "ballast"

    def __enter__(self) -> SmallDisk:
        self.path.mkdir()
        options = f"size={self._mib}m,mode=0700".encode()
        if _LIBC.mount(b"landline-test", os.fsencode(self.path), b"tmpfs", 0, options) != 0:
            pytest.skip(f"a small disk cannot be mounted here: {os.strerror(ctypes.get_errno())}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _LIBC.umount2(os.fsencode(self.path), _DETACH)

    def fill(self) -> None:
        """No byte is free any more."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for block in (_BLOCK, _BLOCK[:1]):
                try:
                    while ballast.write(block):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def make_room(self) -> None:
        """As much is free as before `fill`."""
        self._ballast.unlink()
