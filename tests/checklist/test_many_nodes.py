"""Two nodes on one database (spec 11): whatever was begun on one goes on on the other."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from support import postgres
from support.howtos import blocks, text_of
from support.landline import SECRET, Landline
from support.nginx import PROGRAM, nginx
from support.operator import Operator
from support.relay import Relay
from support.streams import say, started

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(postgres.PROGRAMS is None, reason=postgres.MISSING),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(
    tmp_path_factory: pytest.TempPathFactory, lasting_bot: ScriptedBot
) -> AsyncIterator[tuple[Landline, Landline]]:
    """Two servers with the settings of an operator who has a database."""
    cluster = postgres.cluster()
    url = cluster.url(cluster.database())
    directory = tmp_path_factory.mktemp("nodes")

    def node(name: str) -> Landline:
        return Landline(directory / name, bot=lasting_bot.endpoint, drain_s=0, store=url)

    async with node("a") as one, node("b") as two:
        yield one, two


@pytest_asyncio.fixture(loop_scope="module")
async def on_a(nodes: tuple[Landline, Landline], bot: ScriptedBot) -> AsyncIterator[DirectLine]:
    """A client of one node, with the secret."""
    async with DirectLine(nodes[0].directline, SECRET) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def on_b(nodes: tuple[Landline, Landline], bot: ScriptedBot) -> AsyncIterator[DirectLine]:
    """A client of the other, with the secret."""
    async with DirectLine(nodes[1].directline, SECRET) as client:
        yield client


@pytest.mark.item(172)
async def test_what_is_sent_on_one_node_is_shown_by_a_stream_of_the_other(
    on_a: DirectLine, on_b: DirectLine, bot: ScriptedBot
) -> None:
    opened = await started(on_a, bot)
    name = opened.conversation_id
    again = await on_b.using(opened.token).reconnect(name)
    assert again.status == 200, "a token of the one is good for the other"
    async with on_b.stream(again.stream_url) as stream:
        for number in range(10):
            assert (await on_a.send(name, f"from a {number}")).status == 200
            await say(bot, name, f"from the bot {number}")
            assert (await on_b.send(name, f"from b {number}")).status == 200
        await stream.until_text("from b 9")
        expected = [f"from {whom} {number}" for number in range(10) for whom in ("a", "the bot", "b")]
        assert [text for text in stream.texts if text] == expected


@pytest.mark.item(172)
async def test_typing_and_a_growing_answer_are_seen_on_the_other_node(
    on_a: DirectLine, on_b: DirectLine, bot: ScriptedBot
) -> None:
    opened = await started(on_a, bot)
    name = opened.conversation_id
    async with on_b.stream((await on_b.reconnect(name)).stream_url) as stream:
        assert (await bot.send(name, {"type": "typing"})).status == 200
        await stream.until(lambda s: s.activities and s.activities[-1]["type"] == "typing", "the bot types")
        story = "Once upon a time there was a line"
        information = {"type": "streaminfo", "streamId": "one"}
        for number in range(1, 6):
            chunk = {**information, "streamType": "streaming", "streamSequence": number}
            text = story[: 6 * number]
            assert (await bot.send(name, {"type": "typing", "text": text, "entities": [chunk]})).status == 200
            await stream.until_text(text)
        await say(bot, name, story, entities=[{**information, "streamType": "final"}])
        await stream.until_text(story)


@pytest.mark.item(172)
async def test_a_watermark_of_one_node_is_good_on_the_other(
    on_a: DirectLine, on_b: DirectLine, bot: ScriptedBot
) -> None:
    opened = await started(on_a, bot)
    name = opened.conversation_id
    marks: list[str] = []
    for number in range(6):
        await say(bot, name, f"{number}")
        marks.append((await on_a.activities(name, marks[-1] if marks else None)).watermark)
    for number, mark in enumerate(marks):
        for client in (on_b, on_a):
            left = await client.activities(name, mark)
            assert [each["text"] for each in left.activities] == [f"{n}" for n in range(number + 1, 6)]
            assert (await client.reconnect(name, mark)).replay != "restarted"


@pytest.mark.item(172)
async def test_a_client_that_comes_back_to_the_other_node_gets_everything_while_its_dead_socket_is_open(
    on_a: DirectLine, on_b: DirectLine, bot: ScriptedBot
) -> None:
    opened = await started(on_a, bot)
    name = opened.conversation_id
    async with on_a.stream(opened.stream_url) as dead:
        await say(bot, name, "before")
        await dead.until_text("before")
        dead.stop_reading()
        mark = dead.watermark
        for number in range(20):
            await say(bot, name, f"meanwhile {number}")
        again = await on_b.using(opened.token).reconnect(name, mark)
        async with on_b.stream(again.stream_url) as stream:
            await stream.until_text("meanwhile 19")
            assert stream.texts == [f"meanwhile {number}" for number in range(20)]
        dead.go_on_reading()


async def test_a_file_that_was_sent_on_one_node_is_fetched_from_the_other(
    nodes: tuple[Landline, Landline], on_a: DirectLine, on_b: DirectLine, bot: ScriptedBot
) -> None:
    opened = await started(on_a, bot)
    name = opened.conversation_id
    content = b"the quick brown fox" * 30_000
    boundary = b"b0undary"
    body = b"".join(
        (
            b"--" + boundary + b'\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n',
            b"Content-Type: text/plain\r\n\r\n" + content + b"\r\n--" + boundary + b"--\r\n",
        )
    )
    sent = await on_a.request(
        "POST",
        f"/conversations/{name}/upload?userId=ann",
        data=body,
        headers={"Content-Type": "multipart/form-data; boundary=b0undary"},
    )
    assert sent.status == 200, sent
    found = [each for each in await on_b.all_activities(name) if each.get("attachments")]
    url = found[-1]["attachments"][0]["contentUrl"]
    assert url.startswith(nodes[1].url)
    async with on_b._session.get(url) as answer:
        assert (answer.status, await answer.read()) == (200, content)


async def test_a_secret_that_is_made_or_revoked_on_one_node_is_so_on_the_other(
    nodes: tuple[Landline, Landline],
) -> None:
    one, other = nodes
    async with Operator(one) as operator:
        site = f"site-{uuid.uuid4()}"
        secret = await operator.add_site(site)
        async with DirectLine(other.directline, secret) as theirs:
            await until_status(theirs, 201)
            opened = await theirs.start()
            async with theirs.stream(opened.stream_url) as stream:
                await operator.revoke(site, 1)
                assert (await stream.until_closed())[0] == 4403
            assert (await theirs.start()).status == 403


async def until_status(client: DirectLine, status: int) -> None:
    """Until a start is answered so."""
    async with asyncio.timeout(10):
        while (await client.start()).status != status:
            await asyncio.sleep(0.05)


async def test_a_conversation_that_is_deleted_on_one_node_closes_its_streams_on_the_other(
    nodes: tuple[Landline, Landline], on_b: DirectLine, bot: ScriptedBot
) -> None:
    opened = await started(on_b, bot)
    async with on_b.stream(opened.stream_url) as stream, Operator(nodes[0]) as operator:
        await say(bot, opened.conversation_id, "before")
        await stream.until_text("before")
        await operator.done("DELETE", f"/conversations/{opened.conversation_id}")
        assert (await stream.until_closed())[0] == 4404
    assert (await on_b.activities(opened.conversation_id)).status == 404


async def test_the_bot_is_told_of_a_person_once_whichever_node_learns_of_them(
    nodes: tuple[Landline, Landline], on_a: DirectLine, on_b: DirectLine, bot: ScriptedBot
) -> None:
    for number in range(5):
        opened = await started(on_a, bot)
        name, who = opened.conversation_id, f"person-{number}"
        speaking = [
            client.send(name, {"type": "message", "from": {"id": who}, "text": "hi"}) for client in (on_a, on_b)
        ]
        assert [answer.status for answer in await asyncio.gather(*speaking)] == [200, 200]
        joins = [
            each
            for each in bot.received
            if each.type == "conversationUpdate" and who in [member["id"] for member in each.activity["membersAdded"]]
        ]
        assert len(joins) == 1


@pytest.mark.item(172)
@pytest.mark.skipif(PROGRAM is None, reason="no nginx on this machine: apt-get install nginx-light")
@pytest.mark.parametrize("by_conversation", [True, False], ids=["one node for a conversation", "any node"])
async def test_a_client_that_comes_back_through_a_proxy_gets_everything_once(
    nodes: tuple[Landline, Landline], bot: ScriptedBot, tmp_path: Path, by_conversation: bool
) -> None:
    """The proxy is that of docs/howto/postgresql.md."""
    ((_, printed),) = blocks(text_of("postgresql.md"), "nginx")
    upstreams = printed if by_conversation else "upstream landline { server 10.0.0.1:3000; server 10.0.0.2:3000; }"
    for number, node in enumerate(nodes, 1):
        upstreams = upstreams.replace(f"10.0.0.{number}:3000", f"127.0.0.1:{node.port}")
    log = f"log_format where '$uri $upstream_addr'; access_log {tmp_path}/access.log where;"
    passing = (
        "proxy_http_version 1.1; proxy_set_header Host $http_host; "
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
    )
    async with (
        nginx(tmp_path / "nginx", "http://landline", log=log, more=upstreams, passing=passing) as url,
        DirectLine(f"{url}/v3/directline", SECRET) as client,
    ):
        opened = await started(client, bot)
        name, stream_url, seen = opened.conversation_id, opened.stream_url, []
        for cut in range(8):
            async with client.stream(stream_url) as stream:
                for number in range(3):
                    await say(bot, name, f"{cut}.{number}")
                await stream.until_text(f"{cut}.1")
                seen += [text for text in stream.texts if text]
                mark = stream.watermark
            await say(bot, name, f"{cut}.missed")
            stream_url = (await client.reconnect(name, mark)).stream_url
        async with client.stream(stream_url) as stream:
            await stream.until_text("7.missed")
            seen += [text for text in stream.texts if text]
        expected = [f"{cut}.{what}" for cut in range(8) for what in (0, 1, 2, "missed")]
        assert seen == expected
    lines = [line.split() for line in (tmp_path / "access.log").read_text().splitlines()]
    used = {upstream for path, upstream in lines if f"/{name}" in path}
    assert len(used) == (1 if by_conversation else 2)


async def test_a_node_that_is_killed_loses_nothing_and_its_clients_go_on_at_the_other(
    nodes: tuple[Landline, Landline], on_a: DirectLine, on_b: DirectLine, bot: ScriptedBot
) -> None:
    opened = await started(on_b, bot)
    name = opened.conversation_id
    acknowledged: list[str] = []

    async def speak() -> None:
        for number in range(100):
            answer = await on_b.send(name, f"message {number}")
            assert answer.status == 200, answer
            acknowledged.append(str(answer.json["id"]))

    async with on_a.stream((await on_a.reconnect(name)).stream_url) as lost:
        speaking = asyncio.create_task(speak())
        await lost.until(lambda stream: len(stream.activities) > 20, "some came")
        await nodes[0].kill()
        await lost.until_closed()
    again = await on_b.using(opened.token).reconnect(name, lost.watermark)
    async with on_b.stream(again.stream_url) as stream:
        await speaking
        await stream.until_text("message 99")
        seen = [each["id"] for each in [*lost.activities, *stream.activities] if each["type"] == "message"]
        assert seen == acknowledged, "each once, in their order"
    await nodes[0].start()


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_a_database_that_is_away_costs_time_and_no_stream(tmp_path: Path, bot: ScriptedBot, how: str) -> None:
    """Requests wait within their deadline, then they are told when to come again."""
    cluster = postgres.cluster()
    async with Relay(cluster.port) as relay:
        url = cluster.url(cluster.database(), port=relay.port)
        node = Landline(
            tmp_path / "data", bot=bot.endpoint, drain_s=0, store=url, bot_timeout_s=3, store_wait_s=1, keepalive_s=1
        )
        async with node, DirectLine(node.directline, SECRET) as client:
            opened = await started(client, bot)
            name = opened.conversation_id
            async with client.stream(opened.stream_url) as stream:
                assert (await client.send(name, "before")).status == 200
                await stream.until_text("before")
                relay.refuse()
                for link in relay.links:
                    link.cut() if how == "refused" else link.silence()
                away = await client.send(name, "away", headers={"Idempotency-Key": "away"})
                assert away.status == 503, away
                assert int(away.headers["Retry-After"]) > 0
                async with client._session.get(f"{node.url}/ready") as ready:
                    assert ready.status == 503
                await relay.accept()
                relay.cut()
                assert (await client.send(name, "away", headers={"Idempotency-Key": "away"})).status == 200
                assert (await client.send(name, "after")).status == 200
                await stream.until_text("after", 30)
                assert stream.open
                assert stream.texts == ["before", "away", "after"]
