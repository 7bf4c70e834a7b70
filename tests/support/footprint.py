"""What a server holds, seen from outside (Linux): memory, descriptors, threads, files; and what its log gives away."""

from __future__ import annotations

import base64
import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from support.streams import resident_bytes

FRAGMENT = 16
"""So much of a secret in a row gives it away. Nothing else that a log says looks like it by accident."""

BOT_CONNECTIONS = 4
"""Two chats have so many at most, of both sides' making, and keep them for a while."""


class Footprint(NamedTuple):
    """What a process holds, and what lies in its data directory."""

    memory: int
    sockets: int
    files: Counter[str]
    """What else is open, by name."""
    threads: int
    lying: frozenset[str]
    """Files in the data directory."""

    @classmethod
    def of(cls, pid: int, data: Path) -> Footprint:
        """At this moment."""
        names = list(_open_names(pid))
        return cls(
            resident_bytes(pid),
            sum(name.startswith("socket:") for name in names),
            Counter(name for name in names if not name.startswith("socket:")),
            len(os.listdir(f"/proc/{pid}/task")),
            frozenset(str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()),
        )

    def left_since(self, earlier: Footprint) -> dict[str, int]:
        """What is open now and was not then, by name and number. Connections with a bot come and go."""
        left = dict(self.files - earlier.files)
        more = self.sockets - earlier.sockets
        return left | ({"sockets": more} if more > BOT_CONNECTIONS else {})


def _open_names(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield str(descriptor.readlink())


def given_away(log: str, secrets: Mapping[str, str]) -> dict[str, str]:
    """Which secrets the log knows a piece of, whole or encoded as they travel, each with a line that has it."""
    owners = {piece: name for name, secret in secrets.items() for form in _forms(secret) for piece in _pieces(form)}
    found: dict[str, str] = {}
    for line in log.splitlines():
        for piece in _pieces(line):
            if piece in owners:
                found.setdefault(owners[piece], line)
    return found


def _forms(secret: str) -> Iterable[str]:
    """As it is, percent-encoded, and in Basic credentials (behind a user name of any length)."""
    yield _telling(secret)
    yield "".join(f"%{byte:02X}" for byte in secret.encode())
    yield quote(secret, safe="")
    for behind in range(3):
        # What stands before it decides how it is grouped. The ends depend on neighbours, and are left out.
        yield base64.b64encode(b":" * behind + secret.encode())[4:-4].decode()


def _telling(secret: str) -> str:
    """A token without its head, which is the same in all of them and says nothing."""
    return secret.partition(".")[2] if secret.startswith("eyJ") else secret


def _pieces(text: str) -> Iterator[str]:
    return (text[begin : begin + FRAGMENT] for begin in range(len(text) - FRAGMENT + 1))
