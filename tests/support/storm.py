"""Attacks on their way: thrown many at a time, and each answer held against what it must be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import Sequence

from support.attacks import Attack, Expected
from support.wires import Response

DEADLINE_S = 20.0
"""Longer than any answer may take (spec 8.6)."""

_SOON_S = 0.3
"""So long is waited for an answer that need not come."""

_CODES = ("BadSyntax", "MissingProperty", "BadArgument", "TokenExpired", "Conflict", "MessageSizeTooBig", "RateLimited")
"""What a client can do wrong (3.5)."""

_OAUTH = frozenset(("invalid_request", "invalid_client", "invalid_scope", "unsupported_grant_type"))
"""Codes of the token endpoint, whose errors have a form of their own (RFC 6749, section 5.2)."""


async def throw_all(port: int, attacks: Sequence[Attack], at_once: int = 16) -> list[str]:
    """Throw these, so many at the same time. What was wrong with the answers, none if nothing was."""
    waiting = iter(attacks)
    complaints: list[str] = []

    async def keep_throwing() -> None:
        for attack in waiting:
            complaint = await throw(port, attack)
            if complaint is not None:
                complaints.append(complaint)

    async with asyncio.TaskGroup() as throwing:
        for _ in range(at_once):
            throwing.create_task(keep_throwing())
    return complaints


async def throw(port: int, attack: Attack) -> str | None:
    """Throw one. What was wrong with the answer, or None."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                return await _throw(reader, writer, attack)
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        return f"{attack.name}: {error!r}"


async def _throw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, attack: Attack) -> str | None:
    writer.write(attack.sent)
    if not attack.expected:
        return await _whatever(reader, attack)
    if attack.half_closes:
        writer.write_eof()
    answer = await _response(reader)
    closed = None
    if answer is not None and answer.status == 101:
        if attack.sent_later:
            writer.write(attack.sent_later)
        closed = await _close_code(reader)
    if any(_fits(answer, closed, each) for each in attack.expected):
        return None
    return f"{attack.name}: {answer} {closed or ''}, not {attack.expected}; sent {attack.sent[:200]!r}"


async def _whatever(reader: asyncio.StreamReader, attack: Attack) -> str | None:
    """What is wrong with an answer that may be any, if one comes soon."""
    try:
        async with asyncio.timeout(_SOON_S):
            answer = await _response(reader)
    except (TimeoutError, ConnectionError):
        return None
    if answer is None or answer.status < 400 or _is_plain(answer):
        return None
    if (answer.status < 500 or answer.status == 501) and any(_is_error(answer, code) for code in (*_CODES, *_OAUTH)):
        return None
    return f"{attack.name}: {answer}; sent {attack.sent[:2000]!r}"


async def _response(reader: asyncio.StreamReader) -> Response | None:
    """The first answer, or None where the connection ends without one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    size = int(headers.get("content-length", "0"))
    return Response(int(first.split(" ")[1]), headers, await reader.readexactly(size))


async def _close_code(reader: asyncio.StreamReader) -> int:
    """With which code a WebSocket is closed; 1006 if it just ends."""
    try:
        while True:
            first, second = await reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await reader.readexactly(8))
            payload = await reader.readexactly(size)
            if first & 0x0F == 0x08:
                return int.from_bytes(payload[:2]) if payload else 1005
    except (asyncio.IncompleteReadError, ConnectionError):
        return 1006


def _fits(answer: Response | None, closed: int | None, expected: Expected) -> bool:
    if answer is None or expected.status is None:
        return answer is None and expected.status is None
    if answer.status != expected.status or closed != expected.closes:
        return False
    if expected.plain:
        return _is_plain(answer)
    return expected.code is None or _is_error(answer, expected.code)


def _is_plain(answer: Response) -> bool:
    """Whether this is enough for what is no HTTP (D-52)."""
    return answer.status == 400 and answer.headers["content-type"].startswith("text/plain") and len(answer.body) < 100


def _is_error(answer: Response, code: str) -> bool:
    """Whether this is the error object of 3.5, or what the token endpoint has in place of it."""
    common = ("application/json; charset=utf-8", "no-store")
    if (answer.headers.get("content-type"), answer.headers.get("cache-control")) != common:
        return False
    if not answer.headers.get("x-correlating-operationid"):
        return False
    said = json.loads(answer.body)
    if code in _OAUTH:
        return bool(said.keys() == {"error", "error_description"} and said["error"] == code)
    if list(said) != ["error"] or sorted(said["error"]) != ["code", "message"]:
        return False
    return bool(said["error"]["code"] == code and isinstance(said["error"]["message"], str))
