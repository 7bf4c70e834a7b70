"""Fetching files at the edge: what clients uploaded and what bots attached (spec 5.8, bot 3.6).

Who has the link may have the bytes: the id in it cannot be guessed, and browsers send no credential with an image. So
nothing here may be taken by a browser for a page of this origin.
"""

from __future__ import annotations

import contextlib
import re
from urllib.parse import quote

from starlette.routing import Route

from landline.channel.attachments import Attachments
from landline.channel.registry import Registry
from landline.core.attachments import ORIGINAL, Attachment, may_be_shown, media_type
from landline.core.links import DOWNLOADS, VIEWS
from landline.errors import NotFound, RangeNotSatisfiable, UnknownAttachment
from landline.server.connector import PREFIX
from landline.server.exchange import Exchange, HttpRules, Resource
from landline.server.openapi import operation
from landline.wire.answers import Header

_SHOWN = operation(
    "Attachments",
    {200: "File", 206: "File"},
    parameters=("Range",),
    raises=(NotFound, UnknownAttachment, RangeNotSatisfiable),
)
_HARMLESS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox"),
    (b"accept-ranges", b"bytes"),
    # Never changed; but gone with its conversation, so it must not be kept for long, and by nobody in between.
    (b"cache-control", b"private, max-age=3600"),
)
_RANGE = re.compile(rb"bytes\s*=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)


class Downloads:
    """The endpoints, under the public base and under the service URL of each bot alike (D-29)."""

    def __init__(self, registry: Registry, files: Attachments, rules: HttpRules) -> None:
        self._registry = registry
        self._files = files
        self._rules = rules

    def routes(self) -> list[Route]:
        """What is to be found where."""
        rules = self._rules
        resources = []
        for base in ("", PREFIX + "/{key}"):
            resources += [
                Resource(base + DOWNLOADS + "/{attachment}/{filename}", rules, GET=self.download, HEAD=self.download),
                Resource(base + VIEWS + "/{attachment}/views/{view}", rules, GET=self.view, HEAD=self.view),
            ]
        return [Route(resource.template, resource) for resource in resources]

    @_SHOWN
    async def download(self, exchange: Exchange) -> None:
        """Get a file (5.8). The name in the URL is for people, and for programs that save the file."""
        await self._show(exchange, ORIGINAL)

    @_SHOWN
    async def view(self, exchange: Exchange) -> None:
        """Get a view of an attachment (bot 3.6)."""
        await self._show(exchange, exchange.path("view"))

    async def _show(self, exchange: Exchange, view: str) -> None:
        if "key" in exchange.scope["path_params"] and self._registry.bot_of_key(exchange.path("key")) is None:
            raise NotFound
        blob = await self._files.find(exchange.path("attachment"))
        try:
            size = blob.attachment.size_of(view)
            if size is None:
                raise UnknownAttachment
            status, start, length = 200, 0, size
            asked = _asked(exchange, size)
            headers = _headers(blob.attachment)
            if asked is not None:
                status, (start, length) = 206, asked
                headers.append((b"content-range", f"bytes {start}-{start + length - 1}/{size}".encode()))
            async with contextlib.aclosing(blob.read(view, start, length)) as pieces:
                await exchange.stream(status, pieces, length, *headers)
        finally:
            await blob.close()


def _asked(exchange: Exchange, size: int) -> tuple[int, int] | None:
    """Start and length of the range that is asked for, or None for all of it. Raises `RangeNotSatisfiable`.

    More than one range, and what is no range, is answered with all of it, as RFC 9110 allows; so is one on a condition,
    since there is nothing here that the condition could name, and one of HEAD, which has none (section 14.2).
    """
    if exchange.scope["method"] == "HEAD":
        return None
    found = _RANGE.fullmatch(exchange.header(b"range") or b"")
    if found is None or found[1] == found[2] == b"" or exchange.header(b"if-range") is not None:
        return None
    if found[1] == b"":
        length = min(int(found[2]), size)
        start = size - length
    else:
        start, last = int(found[1]), int(found[2] or size)
        if found[2] and last < start:
            return None
        length = min(last + 1, size) - start
    if length <= 0:
        raise RangeNotSatisfiable(size)
    return start, length


def _headers(attachment: Attachment) -> list[Header]:
    content_type = media_type(attachment.content_type)  # what an earlier version kept may be none
    how = "inline" if may_be_shown(content_type) else "attachment"
    plain = re.sub(r'[^ -~]|["\\%]', "_", attachment.name)
    named = f"{how}; filename=\"{plain}\"; filename*=UTF-8''{quote(attachment.name, safe='')}"
    return [
        (b"content-type", content_type.encode()),
        (b"content-disposition", named.encode()),
        *_HARMLESS,
    ]
