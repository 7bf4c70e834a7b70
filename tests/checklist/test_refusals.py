"""A refusal that is given before the body was read, as programs see it that send all of it first (statement 210)."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from landline.conformance.directline import DirectLine, dumps
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


async def refusals(landline: Landline, base: str, *wanted: int) -> dict[int, list[int]]:
    """What is answered where each of these is due: to an upload of 22 MiB, and to one of 2 MiB where that is not
    due to its size."""
    async with DirectLine(landline.directline, SECRET) as client:
        talk = (await client.start()).conversation_id
        full = (await client.start()).conversation_id
        message = {"type": "message", "from": {"id": "u"}, "text": "one"}
        await client.request("POST", f"/conversations/{full}/activities", data=dumps(message))
        while (await client.request("POST", f"/conversations/{full}/activities", data=dumps(message))).status != 429:
            pass
    good, kind = {"Authorization": f"Bearer {SECRET}"}, {"Content-Type": "image/png"}
    due = {
        401: (talk, "upload", kind),
        403: (talk, "upload", {**kind, "Authorization": "Bearer nonsense"}),
        404: ("NoSuchConversation0000", "upload", {**kind, **good}),
        413: (talk, "activities", {**good, "Content-Type": "application/json"}),
        415: (talk, "upload", {**kind, **good, "Content-Encoding": "gzip"}),
        429: (full, "upload", {**kind, **good}),
    }
    found: dict[int, list[int]] = {}
    for status in wanted:
        conversation, path, headers = due[status]
        url = f"{base}/v3/directline/conversations/{conversation}/{path}?userId=u"
        sizes = (2 * MIB, 22 * MIB) if status == 413 else (2 * MIB, 19 * MIB)
        found[status] = [await asyncio.to_thread(posted, url, size, headers) for size in sizes]
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
