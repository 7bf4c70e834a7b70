"""Links of ours inside stored bytes: what stands in for the base of a URL until it is known who reads.

The same attachment has another address for each reader: clients get the public base that they came by, the bot its own
service URL (D-29). So what is stored has, in place of the base, one byte that cannot occur in it otherwise, because
everything that comes in was checked to be UTF-8. It can neither be forged nor be met by accident, and looking for one
byte costs next to nothing where there is none.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

OUR_BASE = b"\xff"
"""Stands for the base of a URL that leads to this server."""

DOWNLOADS = "/v3/directline/attachments"
"""What clients uploaded (spec 5.8). An id and a file name follow."""

VIEWS = "/v3/attachments"
"""What bots attached (bot 3.6). An id, `/views/` and a view follow."""


@lru_cache(maxsize=256)
def json_text(base: str) -> bytes:
    """`base` as it is written inside a JSON string. Streams that share a base share these bytes."""
    return msgspec.json.encode(base)[1:-1]


def shown(stored: bytes, base: bytes) -> bytes:
    """`stored` for a reader whose links begin with `base`, a `json_text`."""
    return stored.replace(OUR_BASE, base)  # the same object where there is none


def kept(written: bytes, service_url: str) -> bytes:
    """JSON that a bot wrote, with `OUR_BASE` in place of its service URL where an attachment is linked (D-51).

    Wherever that is, also with escaped slashes, and with a run of them for one, which leads there as well (bot 3).
    Downloads are meant as well as views: a bot may show a client's file again under the address it knows, and the key
    in that is not for clients.
    """
    if b"attachments" not in written:
        return written
    for linking, path in zip(_linking(service_url), (DOWNLOADS, VIEWS), strict=True):
        written = linking.sub(OUR_BASE + path.encode() + b"/", written)  # not a function: that takes four times as long
    return written


@lru_cache(maxsize=256)
def _linking(service_url: str) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """What downloads and views begin with."""
    slash = rb"\\?/"
    base = slash.join(re.escape(part) for part in json_text(service_url.removesuffix("/")).split(b"/"))
    run = rb"(?:\\?/)++"
    downloads, views = (
        re.compile(base + run + b"v3" + run + path + b"attachments" + run) for path in (b"directline" + run, b"")
    )
    return downloads, views
