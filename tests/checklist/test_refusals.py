"""A refusal that is given before the body was read, as programs see it that send all of it first (statement 210)."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.nginx import PROGRAM, nginx

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def strict(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Landline]:
    """A server where only one message of a conversation is taken in a quarter of a minute."""
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path_factory.mktemp("strict") / "data", bot=bot.endpoint, sends_per_s=0.06) as landline,
    ):
        yield landline


def posted(url: str, size: int, headers: dict[str, str]) -> int:
    """The status that urllib gets. It sends `Connection: close`, and everything before it reads."""
    asked = urllib.request.Request(url, bytes(size), headers, method="POST")  # loopback
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            error.read()
            return error.code


KIND = {"Content-Type": "image/png"}
GOOD = {**KIND, "Authorization": f"Bearer {SECRET}"}
DUE: dict[int, tuple[str, dict[str, str]]] = {
    401: ("upload", KIND),
    403: ("upload", {**KIND, "Authorization": "Bearer nonsense"}),
    404: ("upload", GOOD),
    413: ("activities", {**GOOD, "Content-Type": "application/json"}),
    415: ("upload", {**GOOD, "Content-Encoding": "gzip"}),
    429: ("upload", GOOD),
}
"""What is refused with each of these, before its body is read."""


async def conversation_for(status: int, client: DirectLine, size: int) -> str:
    """A conversation where that is due, and which nobody has used before."""
    if status == 404:
        return f"NoSuchConversation{size}"
    conversation: str = (await client.start()).conversation_id
    if status == 429:
        while (await client.send(conversation, "often")).status != 429:
            pass
    return conversation


async def refusals(landline: Landline, base: str, *wanted: int) -> dict[int, list[int]]:
    """What is answered where each of these is due: to 2 MiB, and to as much as is not refused for its size alone."""
    found: dict[int, list[int]] = {}
    async with DirectLine(landline.directline, SECRET) as client:
        for status in wanted:
            path, headers = DUE[status]
            found[status] = []
            for size in (2 * MIB, 22 * MIB if status == 413 else 19 * MIB):
                conversation = await conversation_for(status, client, size)
                url = f"{base}/v3/directline/conversations/{conversation}/{path}?userId=u"
                found[status].append(await asyncio.to_thread(posted, url, size, headers))
    return found


@pytest.mark.item(210)
async def test_urllib_sees_every_refusal(strict: Landline) -> None:
    wanted = (401, 403, 404, 413, 415, 429)
    assert await refusals(strict, strict.url, *wanted) == {status: [status, status] for status in wanted}


@pytest.mark.item(210)
@pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed (make .tools/nginx)")
async def test_plain_nginx_passes_refusals_on(strict: Landline, tmp_path: Path) -> None:
    async with nginx(tmp_path / "nginx", strict.url) as front:
        assert await refusals(strict, front, 403, 413) == {403: [403, 403], 413: [413, 413]}
