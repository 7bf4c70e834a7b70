"""Uploads as clients make them, byte for byte, and downloads with everything that came.

A body is written here rather than by a library, because what libraries write is not what browsers and SDKs write.
"""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from landline.conformance.directline import Answer, DirectLine

BOUNDARY = "----WebKitFormBoundaryqT7hwXz5a"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
ACTIVITY = "application/vnd.microsoft.activity"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63fccf"
    "c0f01f0005050102cf1a02a30000000049454e44ae426082"
)
"""A PNG of one pixel."""


class Fetched(NamedTuple):
    """An answer to a download."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


def part(content: bytes, disposition: str | None, content_type: str | None = None) -> bytes:
    """One part of a form, without its boundary. `disposition` is what stands behind `form-data; `."""
    lines = [] if disposition is None else [f"Content-Disposition: form-data; {disposition}"]
    lines += [f"Content-Type: {content_type}"] if content_type else []
    return "\r\n".join([*lines, "", ""]).encode() + content


def activity_part(activity: object) -> bytes:
    """The activity as DirectLineJS adds it to its form."""
    return part(json.dumps(activity).encode(), 'name="activity"; filename="blob"', ACTIVITY)


def file_part(name: str, content: bytes, content_type: str | None = "image/png") -> bytes:
    """A file as DirectLineJS adds it to its form."""
    return part(content, f'name="file"; filename="{name}"', content_type)


def form(*parts: bytes) -> bytes:
    """The body; its headers are `FORM`."""
    delimiter = b"--" + BOUNDARY.encode()
    return b"".join(delimiter + b"\r\n" + each + b"\r\n" for each in parts) + delimiter + b"--\r\n"


async def upload(
    client: DirectLine,
    conversation_id: str,
    body: bytes,
    headers: Mapping[str, str] = FORM,
    *,
    user_id: str | None = "u1",
    **options: Any,
) -> Answer:
    """POST to the upload endpoint."""
    query = "" if user_id is None else f"?userId={user_id}"
    path = f"/conversations/{conversation_id}/upload{query}"
    return await client.request("POST", path, data=io.BytesIO(body), headers=headers, **options)


async def fetch(url: str, *, tls: ssl.SSLContext | bool = True, **headers: str) -> Fetched:
    """GET a link as a browser does, or a bot: without a credential. `_` in the name of a header is a hyphen. `tls` says
    whom to trust."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.get(URL(url, encoded=True), headers=named, allow_redirects=False, ssl=tls) as response,
    ):
        return Fetched(response.status, response.headers, await response.read())
