"""A server with every fault that the hostile run looks for: run as a program, it takes what `landline` takes.

It is the product with a few of its functions replaced, so that what finds these faults would find them in the product.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import structlog

from landline.blobs.files import FileBlobs, FileDraft
from landline.cli import main
from landline.errors import UnsupportedMediaType
from landline.server.exchange import Exchange, Resource
from landline.wire import problems
from landline.wire.websocket import WebSocket

LEAK_BYTES = 4096
"""Kept for ever of each request."""

_kept: list[object] = []
_requests = itertools.count(1)
_frames = itertools.count(1)
_log = structlog.get_logger(__name__)


def plant() -> None:
    """Replace what is right."""
    record = Resource._record
    send_texts = WebSocket.send_texts

    def remember(self: Resource, exchange: Exchange) -> None:
        record(self, exchange)
        _kept.append(bytes(LEAK_BYTES))
        if next(_requests) % 200 == 0:
            _kept.append(os.open(os.devnull, os.O_RDONLY))
            _log.error("something odd", credential=repr(exchange.header(b"authorization"))[-24:])

    def stutter(self: WebSocket, payloads: Sequence[bytes]) -> None:
        send_texts(self, payloads)
        if b'"n ' in b"".join(payloads) and next(_frames) % 10 == 0:
            send_texts(self, payloads)

    def leave_aside(self: FileBlobs, drafts: Sequence[FileDraft]) -> None:
        for draft in drafts:
            draft.close()

    Resource._record = remember  # type: ignore[method-assign]
    WebSocket.send_texts = stutter  # type: ignore[method-assign]
    FileBlobs._discard = leave_aside  # type: ignore[method-assign]
    problems._TABLE = tuple(  # type: ignore[misc]
        (kind, 500 if kind is UnsupportedMediaType else status, code) for kind, status, code in problems._TABLE
    )


if __name__ == "__main__":
    plant()
    main()
