"""`python -m support.stuck_disk serve …`: `landline serve …` on a real disk that hangs for as long as a test likes."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from landline import cli
from landline.server import storage
from landline.stores.sqlite import SqliteStore, layout

_FILE = "HUNG_WHILE_THERE_IS"
_NAME = "stuck"


@contextlib.contextmanager
def stuck(file: Path) -> Iterator[None]:
    """No write of the process with this `file` in its environment ends."""
    file.touch()
    yield
    file.unlink()


def environment(file: Path) -> dict[str, str]:
    """What the process needs to find its modules, and `file`."""
    return {"PYTHONPATH": os.pathsep.join(sys.path), _FILE: str(file)}


class _Disk(apsw.VFS):
    def __init__(self, file: Path) -> None:
        self.file = file
        super().__init__(_NAME, "")

    def xOpen(self, name: Any, flags: list[int]) -> _File:
        return _File(self.file, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, file: Path, name: Any, flags: list[int]) -> None:
        self._file = file
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        while self._file.exists():
            time.sleep(0.01)
        super().xWrite(data, offset)


if __name__ == "__main__":
    disk = _Disk(Path(os.environ.pop(_FILE)))
    connect = functools.partial(layout.connect, vfs=_NAME)
    storage.SqliteStore = functools.partial(SqliteStore, connect=connect)  # type: ignore[misc,assignment]
    cli.main()
