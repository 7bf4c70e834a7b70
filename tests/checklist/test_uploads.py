"""Uploads and attachments: what becomes of files, and who gets them (section 14 F, 22, 28, 191; bot 13, 65 to 68).

Files are shown from both ends: the bytes that went in are those that come out at the link in the activity.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from landline.conformance.directline import Activity, DirectLine
from landline.conformance.scripted_bot import Answer, ScriptedBot
from landline.conformance.uploads import (
    BOUNDARY,
    FORM,
    PIXEL,
    Fetched,
    activity_part,
    fetch,
    file_part,
    form,
    part,
    upload,
)
from support.landline import SECRET, Landline
from support.operator import Operator
from support.streams import started, until
from support.wires import DEADLINE_S, Response, Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

JPEG = b"\xff\xd8\xff\xe0 not quite a picture \xff\xd9\x00\r\n--"
ONE_FILE = {"Content-Type": "image/jpeg", "Content-Disposition": 'name="file"; filename="a.jpg"'}


async def only(client: DirectLine, conversation_id: str) -> Activity:
    """The one activity in the conversation."""
    (activity,) = await client.all_activities(conversation_id)
    return activity


async def link_of(client: DirectLine, conversation_id: str) -> str:
    """The link to the one file in it."""
    (attachment,) = (await only(client, conversation_id))["attachments"]
    return str(attachment["contentUrl"])


def attached(bot: ScriptedBot, conversation_id: str) -> list[Activity]:
    """The attachments of the last message that the bot heard."""
    found = [each for each in bot.heard(conversation_id) if each["type"] == "message"][-1]["attachments"]
    assert isinstance(found, list)
    return found


# One file


@pytest.mark.item(102, 103)
async def test_a_single_file_becomes_a_message_whose_link_gives_the_same_bytes_to_anybody(
    client: DirectLine, conversation_id: str
) -> None:
    answer = await upload(client, conversation_id, JPEG, ONE_FILE)
    assert (answer.status, answer.json) == (200, {"id": f"{conversation_id}|0000000"})
    activity = await only(client, conversation_id)
    assert activity["type"] == "message"
    assert activity["from"] == {"id": "u1"}
    (attachment,) = activity["attachments"]
    assert attachment.keys() == {"contentType", "name", "contentUrl"}
    assert (attachment["contentType"], attachment["name"]) == ("image/jpeg", "a.jpg")
    assert attachment["contentUrl"].startswith(f"{client.domain}/attachments/")
    fetched = await fetch(attachment["contentUrl"], Origin="http://shop.example")
    assert (fetched.status, fetched.body) == (200, JPEG)
    assert fetched.headers["Content-Type"] == "image/jpeg"
    assert fetched.headers["Content-Length"] == str(len(JPEG))
    assert fetched.headers["X-Content-Type-Options"] == "nosniff"
    assert fetched.headers["Content-Security-Policy"] == "sandbox"
    assert fetched.headers["Content-Disposition"].startswith("inline;")
    assert fetched.headers["Access-Control-Allow-Origin"] == "http://shop.example"
    assert fetched.headers["Referrer-Policy"] == "no-referrer"


async def test_a_picture_that_a_browser_keeps_is_not_taken_for_the_answer_to_a_script(
    client: DirectLine, conversation_id: str
) -> None:
    """3.3, 5.8: an `<img>` sends no `Origin`, and its answer may be kept for an hour."""
    await upload(client, conversation_id, JPEG, ONE_FILE)
    for headers in ({}, {"Origin": "http://shop.example"}):
        fetched = await fetch(await link_of(client, conversation_id), **headers)
        assert "max-age" in fetched.headers["Cache-Control"]
        assert fetched.headers["Vary"] == "Origin"
        assert ("Access-Control-Allow-Origin" in fetched.headers) == bool(headers)


async def test_the_same_file_twice_is_two_files_and_no_link_tells_of_another(
    client: DirectLine, conversation_id: str
) -> None:
    await upload(client, conversation_id, JPEG, ONE_FILE)
    await upload(client, conversation_id, JPEG, ONE_FILE)
    links = [each["attachments"][0]["contentUrl"] for each in await client.all_activities(conversation_id)]
    assert len(set(links)) == 2
    ids = [urlsplit(link).path.split("/")[-2] for link in links]
    assert len({each[-32:] for each in ids}) == 2, "128 bits differ, which are random"


@pytest.mark.item(102)
@pytest.mark.parametrize(
    ("headers", "name", "content_type"),
    [
        ({}, "attachment", "application/octet-stream"),
        ({"Content-Type": "application/json"}, "attachment", "application/json"),
        ({"Content-Disposition": "attachment; filename=plain.txt; size=3"}, "plain.txt", "application/octet-stream"),
        ({"Content-Disposition": "filename=\"e.txt\"; filename*=UTF-8''%e2%82%ac.txt"}, "€.txt", None),
        ({"Content-Disposition": 'name="file"; filename="Gr\u00fc\u00dfe.txt"'}, "Grüße.txt", None),
        ({"Content-Disposition": 'filename=".."'}, "attachment", None),
    ],
)
async def test_a_single_file_is_called_what_its_headers_say(
    client: DirectLine, conversation_id: str, headers: dict[str, str], name: str, content_type: str | None
) -> None:
    assert (await upload(client, conversation_id, b'{"type":"event"}', headers)).status == 200
    activity = await only(client, conversation_id)
    assert activity["type"] == "message"
    (attachment,) = activity["attachments"]
    assert attachment["name"] == name
    assert attachment["contentType"] == content_type or content_type is None
    assert (await fetch(attachment["contentUrl"])).body == b'{"type":"event"}'


@pytest.mark.item(110)
@pytest.mark.parametrize("path", [r"C:\x\y.png", r"C:\\x\\y.png", "/tmp/x/y.png", "../y.png"])
async def test_of_a_path_only_the_name_is_kept(client: DirectLine, conversation_id: str, path: str) -> None:
    single = {"Content-Type": "image/png", "Content-Disposition": f'name="file"; filename="{path}"'}
    await upload(client, conversation_id, PIXEL, single)
    await upload(client, conversation_id, form(file_part(path, PIXEL)))
    for activity in await client.all_activities(conversation_id):
        (attachment,) = activity["attachments"]
        assert attachment["name"] == "y.png"
        assert attachment["contentUrl"].endswith("/y.png")
        assert (await fetch(attachment["contentUrl"])).body == PIXEL


# Forms


@pytest.mark.item(104)
async def test_a_form_with_an_activity_and_two_files_is_one_activity_with_both(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    said = {"type": "message", "text": "look", "channelData": {"clientActivityID": "c1"}, "from": {"id": "x"}}
    body = form(activity_part(said), file_part("a.png", b"A"), file_part("b.txt", b"B", "text/plain"))
    answer = await upload(client, conversation_id, body)
    assert answer.status == 200
    activity = await only(client, conversation_id)
    assert activity["id"] == answer.json["id"]
    assert (activity["text"], activity["channelData"]) == ("look", {"clientActivityID": "c1"})
    assert [(each["name"], each["contentType"]) for each in activity["attachments"]] == [
        ("a.png", "image/png"),
        ("b.txt", "text/plain"),
    ]
    assert [(await fetch(each["contentUrl"])).body for each in activity["attachments"]] == [b"A", b"B"]
    heard = [each for each in bot.heard(conversation_id) if each["type"] == "message"]
    assert [each["id"] for each in heard] == [answer.json["id"]]


@pytest.mark.item(105)
async def test_files_fill_the_templates_of_their_names_whatever_order_they_come_in(
    client: DirectLine, conversation_id: str
) -> None:
    said = {
        "type": "message",
        "attachments": [
            {"contentType": "image/png", "name": "a.png", "thumbnailUrl": "data:image/png;base64,QQ=="},
            {"contentType": "image/png", "name": "b.png", "thumbnailUrl": "data:image/png;base64,Qg==", "x": 1},
        ],
    }
    await upload(client, conversation_id, form(activity_part(said), file_part("b.png", b"B"), file_part("a.png", b"A")))
    first, second = (await only(client, conversation_id))["attachments"]
    assert (first["name"], first["thumbnailUrl"]) == ("a.png", "data:image/png;base64,QQ==")
    assert (second["name"], second["thumbnailUrl"], second["x"]) == ("b.png", "data:image/png;base64,Qg==", 1)
    assert [(await fetch(each["contentUrl"])).body for each in (first, second)] == [b"A", b"B"]


@pytest.mark.item(106)
async def test_a_form_without_activity_is_a_message_with_the_files_in_their_order(
    client: DirectLine, conversation_id: str
) -> None:
    fields = part(b"no file", 'name="comment"'), part(b"nor this", None)
    nameless = part(b"C", 'name="file"')
    await upload(
        client, conversation_id, form(file_part("b.png", b"B"), *fields, file_part("a.png", b"A", None), nameless)
    )
    activity = await only(client, conversation_id)
    assert activity["type"] == "message"
    assert [(each["name"], each["contentType"]) for each in activity["attachments"]] == [
        ("b.png", "image/png"),
        ("a.png", "application/octet-stream"),
        ("attachment", "application/octet-stream"),
    ]
    assert [(await fetch(each["contentUrl"])).body for each in activity["attachments"]] == [b"B", b"A", b"C"]


async def test_a_file_is_carried_exactly_even_if_it_looks_like_the_end_of_its_part(
    client: DirectLine, conversation_id: str
) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    pieces = [b"\r\n--", b"\r", b"\n", b"--", b"------WebKit", b"\x00", b"\xff", bytes([chance.randrange(256)]) * 999]
    content = b"".join(chance.choices(pieces, k=4000))
    await upload(client, conversation_id, form(file_part("odd.bin", content, "application/x-odd")))
    assert (await fetch(await link_of(client, conversation_id))).body == content


# What is refused, and leaves nothing


MESSAGE, FILE = activity_part({"type": "message"}), file_part("a", b"A")
NO_JSON = part(b"{", 'name="a"', "application/vnd.microsoft.activity")
NO_ARRAY, NO_TYPE = activity_part({"type": "message", "attachments": {}}), activity_part({"text": "no type"})
TOO_LONG = activity_part({"type": "message", "text": "x" * 262_144})


@pytest.mark.item(107)
@pytest.mark.parametrize(
    ("body", "headers", "error"),
    [
        (form(MESSAGE), FORM, (400, "BadArgument")),
        (form(part(b"x", 'name="comment"')), FORM, (400, "BadArgument")),
        (b"", {}, (400, "BadArgument")),
        (form(MESSAGE, MESSAGE, FILE), FORM, (400, "BadArgument")),
        (form(activity_part([1]), FILE), FORM, (400, "BadArgument")),
        (form(NO_ARRAY, FILE), FORM, (400, "BadArgument")),
        (form(NO_TYPE, FILE), FORM, (400, "MissingProperty")),
        (form(NO_JSON, FILE), FORM, (400, "BadSyntax")),
        (form(FILE)[:-4], FORM, (400, "BadSyntax")),
        (b"no form at all", FORM, (400, "BadSyntax")),
        (form(FILE), {"Content-Type": "multipart/form-data"}, (400, "BadSyntax")),
        (form(*[FILE] * 21), FORM, (413, "MessageSizeTooBig")),
        (form(TOO_LONG, FILE), FORM, (413, "MessageSizeTooBig")),
    ],
    ids=range(13),
)
async def test_what_is_no_upload_is_refused_and_nothing_of_it_is_kept(
    landline: Landline,
    client: DirectLine,
    bot: ScriptedBot,
    conversation_id: str,
    body: bytes,
    headers: dict[str, str],
    error: tuple[int, str],
) -> None:
    before = kept(landline)
    assert (await upload(client, conversation_id, body, headers)).error == error
    assert await client.all_activities(conversation_id) == []
    assert kept(landline) == before
    assert [each["type"] for each in bot.heard(conversation_id)] == ["conversationUpdate"]


def kept(landline: Landline) -> set[Path]:
    """The files that the server has, aside or in place."""
    return {path for path in (landline.data / "blobs").rglob("*") if path.is_file()}


@pytest.mark.item(108, 109)
async def test_the_sender_is_the_tokens_user_else_the_activitys_else_the_query(client: DirectLine) -> None:
    anonymous = await client.using((await client.generate()).token).start()
    loose = client.using(anonymous.token)
    cid = anonymous.conversation_id
    assert (await upload(loose, cid, PIXEL, ONE_FILE, user_id=None)).error == (400, "MissingProperty")
    assert (await upload(loose, cid, PIXEL, ONE_FILE, user_id="")).error == (400, "MissingProperty")
    assert (await upload(loose, cid, PIXEL, ONE_FILE, user_id="dl_u1")).error == (400, "BadArgument")
    says = activity_part({"type": "message", "from": {"id": "u3", "name": "Ann", "role": "user"}})
    body = form(says, file_part("a.png", PIXEL))
    assert (await upload(loose, cid, body, user_id=None)).status == 200
    assert (await upload(loose, cid, body, user_id="u1%20x")).status == 200
    assert [each["from"] for each in await client.all_activities(cid)] == [
        {"id": "u3", "name": "Ann", "role": "user"},
        {"id": "u3", "name": "Ann", "role": "user"},
    ]
    bound = await client.using((await client.generate(user={"id": "u2"})).token).start()
    token = client.using(bound.token)
    for user_id in (None, "u1"):
        assert (await upload(token, bound.conversation_id, PIXEL, ONE_FILE, user_id=user_id)).status == 200
    assert [each["from"]["id"] for each in await client.all_activities(bound.conversation_id)] == ["u2", "u2"]


@pytest.mark.item(28, 101)
async def test_who_may_not_send_may_not_upload(
    landline: Landline, client: DirectLine, conversation_id: str, tmp_path: Path
) -> None:
    """Item 28 for uploads: an expired token is `TokenExpired`."""
    assert (await upload(client.using(None), conversation_id, JPEG, ONE_FILE)).error == (401, "BadArgument")
    assert (await upload(client, "unknown-conversation", JPEG, ONE_FILE)).error == (404, "BadArgument")
    other = await client.start(user={"id": "u2"})
    assert (await upload(client.using(other.token), conversation_id, JPEG, ONE_FILE)).error == (403, "BadArgument")
    async with (
        Landline(tmp_path / "data", token_ttl_s=1, clock_leeway_s=0) as brief,
        DirectLine(brief.directline, SECRET) as client_,
    ):
        started = await client_.start()
        expired = client_.using(started.token)

        async def error() -> tuple[int, str]:
            answer = await upload(expired, started.conversation_id, JPEG, ONE_FILE)
            return answer.error

        async with asyncio.timeout(10):
            while await error() != (403, "TokenExpired"):
                await asyncio.sleep(0.1)


@pytest.mark.item(111)
async def test_what_is_over_the_limit_is_413_and_four_megabytes_are_not(
    landline: Landline, client: DirectLine, conversation_id: str
) -> None:
    limit = 20 * 1024 * 1024
    big = os.urandom(4 * 1024 * 1024)
    assert (await upload(client, conversation_id, big, ONE_FILE)).status == 200
    assert (await fetch(await link_of(client, conversation_id))).body == big
    before = kept(landline)
    declared = await upload(client, conversation_id, bytes(limit + 1), ONE_FILE)
    assert declared.error == (413, "MessageSizeTooBig")

    async def undeclared() -> AsyncIterator[bytes]:
        for _ in range(21):
            yield bytes(1024 * 1024)

    path = f"/conversations/{conversation_id}/upload?userId=u1"
    answer = await client.request("POST", path, data=undeclared(), headers=ONE_FILE)
    assert answer.error == (413, "MessageSizeTooBig")
    assert kept(landline) == before
    assert (await upload(client, conversation_id, bytes(limit), ONE_FILE)).status == 200


async def test_twenty_files_are_not_too_many(client: DirectLine, conversation_id: str) -> None:
    files = [file_part(f"{number}.txt", f"{number}".encode(), "text/plain") for number in range(20)]
    assert (await upload(client, conversation_id, form(*files))).status == 200
    links = [each["contentUrl"] for each in (await only(client, conversation_id))["attachments"]]
    assert [(await fetch(link)).body for link in links] == [f"{number}".encode() for number in range(20)]


async def test_a_form_of_many_tiny_parts_is_refused_before_it_is_there(
    landline: Landline, client: DirectLine, conversation_id: str
) -> None:
    """5.6: each part costs time, whatever it is. Up to 32 besides the files are taken."""
    others = [part(b"", 'name="x"')] * 31
    assert (await upload(client, conversation_id, form(MESSAGE, *others, *[FILE] * 20))).status == 200
    before = kept(landline)
    tiny = b"--x\r\na:\r\n\r\n\r\n"
    head = (
        f"POST /v3/directline/conversations/{conversation_id}/upload?userId=u1 HTTP/1.1\r\nHost: here\r\n"
        f"Authorization: Bearer {SECRET}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        "Content-Length: 20971520\r\n\r\n"
    )

    def told() -> Response:
        with Wire(socket.create_connection(("127.0.0.1", landline.port), DEADLINE_S)) as wire:
            wire.send(head.encode() + tiny * 10_000)
            return wire.response()

    answer = await asyncio.to_thread(told)
    assert (answer.status, answer.error["code"]) == (413, "MessageSizeTooBig")
    assert kept(landline) == before


async def test_a_form_may_have_a_preamble_and_blanks_behind_its_boundaries(
    client: DirectLine, conversation_id: str
) -> None:
    """RFC 2046, section 5.1.1, which 5.6 does not narrow."""
    boundary = b"--" + BOUNDARY.encode()
    body = form(MESSAGE, file_part("a.png", PIXEL)).replace(boundary + b"\r\n", boundary + b" \t\r\n")
    assert (await upload(client, conversation_id, b"Some clients say this.\r\n" * 9999 + body)).status == 200
    assert (await fetch(await link_of(client, conversation_id))).body == PIXEL


async def test_memory_does_not_grow_with_the_size_of_uploads(landline: Landline, client: DirectLine) -> None:
    async def peak_kib() -> int:
        lines = Path(f"/proc/{landline.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

    started = (await client.start()).conversation_id
    await upload(client, started, bytes(1024), ONE_FILE)
    Path(f"/proc/{landline.pid}/clear_refs").write_text("5")
    before = await peak_kib()
    body = form(file_part("a.bin", bytes(18 * 1024 * 1024)))
    answers = await asyncio.gather(*(upload(client, started, body) for _ in range(6)))
    assert {answer.status for answer in answers} == {200}
    fetched = [fetch(each["attachments"][0]["contentUrl"]) for each in (await client.all_activities(started))[1:]]
    assert {len(each.body) for each in await asyncio.gather(*fetched)} == {18 * 1024 * 1024}
    assert await peak_kib() - before < 24 * 1024


# Fetching


@pytest.mark.item(112)
@pytest.mark.parametrize(
    "content_type",
    [
        "image/svg+xml",
        "IMAGE/SVG+XML; charset=utf-8",
        "text/html",
        "application/xhtml+xml",
        "application/pdf",
        "broken",
    ],
)
async def test_what_could_hold_a_script_is_never_shown_in_place(
    client: DirectLine, conversation_id: str, content_type: str
) -> None:
    headers = {"Content-Type": content_type, "Content-Disposition": 'filename="x; y\\"é.svg"'}
    assert (await upload(client, conversation_id, b"<svg onload='alert(1)'/>", headers)).status == 200
    fetched = await fetch(await link_of(client, conversation_id))
    disposition = fetched.headers["Content-Disposition"]
    assert disposition.startswith('attachment; filename="x; y__.svg"; filename*=UTF-8')
    assert fetched.headers["Content-Security-Policy"] == "sandbox"
    assert fetched.headers["X-Content-Type-Options"] == "nosniff"
    expected = "application/octet-stream" if content_type == "broken" else content_type
    assert fetched.headers["Content-Type"] == expected


async def test_ranges_are_served(client: DirectLine, conversation_id: str) -> None:
    content = bytes(range(256)) * 4000
    await upload(client, conversation_id, content, {"Content-Type": "video/mp4"})
    link = await link_of(client, conversation_id)
    size = len(content)
    for asked, start, end in [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-", 1000, size),
        (f"bytes=5-{size * 2}", 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=-{size * 2}", 0, size),
        ("Bytes=300000-600000", 300_000, 600_001),
    ]:
        fetched = await fetch(link, Range=asked)
        assert (fetched.status, fetched.body) == (206, content[start:end]), asked
        assert fetched.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        assert fetched.headers["Content-Length"] == str(end - start)
    for asked in (f"bytes={size}-", "bytes=-0"):
        fetched = await fetch(link, Range=asked)
        assert fetched.status == 416
        assert fetched.headers["Content-Range"] == f"bytes */{size}"
        assert json.loads(fetched.body)["error"]["code"] == "BadArgument"
    for asked in ("bytes=5-4", "bytes=0-1,3-4", "lines=1-2", "bytes=-"):
        fetched = await fetch(link, Range=asked)
        assert (fetched.status, fetched.body) == (200, content), asked
    assert (await fetch(link, Range="bytes=0-0", If_Range='"x"')).status == 200
    assert (await fetch(link)).headers["Accept-Ranges"] == "bytes"


async def test_head_says_what_get_says_and_sends_no_bytes(
    landline: Landline, client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    """RFC 9110, section 9.3.2; a range has no meaning there. On one connection, where bytes would be seen."""
    await upload(client, conversation_id, JPEG, ONE_FILE)
    links = [await link_of(client, conversation_id), attached(bot, conversation_id)[0]["contentUrl"]]

    def told(path: str) -> None:
        with Wire(socket.create_connection(("127.0.0.1", landline.port), DEADLINE_S)) as wire:
            heads = []
            for method, more in (
                ("HEAD", " HTTP/1.1"),
                ("HEAD", " HTTP/1.1\r\nRange: bytes=0-3"),
                ("HEAD", "x/unknown HTTP/1.1"),
                ("GET", " HTTP/1.1"),
            ):
                wire.send(f"{method} {path}{more}\r\nHost: here\r\n\r\n".encode())
                while b"\r\n\r\n" not in wire.held:
                    wire._fill()
                head = wire.take(wire.held.index(b"\r\n\r\n") + 4).lower()
                heads.append([each for each in head.split(b"\r\n") if not each.startswith((b"date", b"x-corr"))])
            assert heads[0] == heads[1] == heads[3]
            assert heads[2][0] == b"http/1.1 404 not found"
            assert heads[0][0] == b"http/1.1 200 ok"
            assert f"content-length: {len(JPEG)}".encode() in heads[0]
            assert wire.take(len(JPEG)) == JPEG
            wire.send(f"PUT {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            assert wire.response().headers["allow"] == "GET, HEAD"

    for link in links:
        await asyncio.to_thread(told, urlsplit(link).path)


async def test_an_unknown_attachment_is_404(client: DirectLine, conversation_id: str, landline: Landline) -> None:
    await upload(client, conversation_id, JPEG, ONE_FILE)
    link = await link_of(client, conversation_id)
    attachment_id = urlsplit(link).path.split("/")[-2]
    for wrong in (attachment_id[:-1], attachment_id[:-1] + "g", "..%2f..%2flandline.db", attachment_id.upper(), "%00"):
        fetched = await fetch(link.replace(attachment_id, wrong))
        assert fetched.status == 404, wrong
        assert json.loads(fetched.body)["error"]["code"] == "BadArgument"
    assert (await fetch(f"{landline.url}/b/no-such-key{urlsplit(link).path}")).status == 404


@pytest.mark.item(22)
async def test_links_begin_with_the_public_base_each_reader_came_by(tmp_path: Path) -> None:
    """Item 22, attachment links."""
    landline = Landline(tmp_path / "data", public_url="https://chat.example/some/prefix")
    async with landline, DirectLine(landline.directline, SECRET) as client:
        started = (await client.start()).conversation_id
        await upload(client, started, JPEG, ONE_FILE)
        link = await link_of(client, started)
        assert link.startswith("https://chat.example/some/prefix/v3/directline/attachments/")
        assert (await fetch(link.replace("https://chat.example", landline.url))).body == JPEG
    landline.settings.pop("public_url")
    async with landline, DirectLine(landline.directline, SECRET) as client:
        # The address changed; what is stored knows none.
        assert await link_of(client, started) == link.replace("https://chat.example/some/prefix", landline.url)
        page = (await client.activities(started, headers={"Host": "other.example:81"})).activities
        assert page[0]["attachments"][0]["contentUrl"].startswith("http://other.example:81/v3/directline/attachments/")
        url = (await client.reconnect(started, "")).stream_url
        async with client.stream(url, headers={"Host": "third.example"}) as stream:
            await stream.until(lambda stream: stream.activities)
            shown = stream.activities[0]["attachments"][0]["contentUrl"]
            assert shown.startswith("http://third.example/v3/directline/attachments/")


async def test_the_echo_of_an_upload_has_the_link_of_the_streams_own_handshake(
    client: DirectLine, conversation_id: str
) -> None:
    url = (await client.reconnect(conversation_id)).stream_url
    async with (
        client.stream(url) as here,
        client.stream(url, headers={"Host": "elsewhere.example"}) as elsewhere,
    ):
        await upload(client, conversation_id, JPEG, ONE_FILE)
        for stream, base in ((here, client.domain), (elsewhere, "http://elsewhere.example/v3/directline")):
            await stream.until(lambda stream: stream.activities)
            assert stream.activities[0]["attachments"][0]["contentUrl"].startswith(f"{base}/attachments/")


@pytest.mark.item(113)
async def test_an_expired_file_is_gone_and_its_activity_is_not(tmp_path: Path) -> None:
    async with (
        Landline(tmp_path / "data", upload_ttl_s=1) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        started = (await client.start()).conversation_id
        await upload(client, started, JPEG, ONE_FILE)
        before = await only(client, started)
        link = before["attachments"][0]["contentUrl"]
        assert (await fetch(link)).status == 200
        async with asyncio.timeout(10):
            while (await fetch(link)).status != 404:
                await asyncio.sleep(0.1)
        assert await only(client, started) == before
        await landline.restart()
        async with asyncio.timeout(10):
            while kept(landline):
                await asyncio.sleep(0.05)
        assert (await fetch(link)).status == 404
        assert await only(client, started) == before


# The bot


@pytest.mark.bot_item(13)
@pytest.mark.item(103)
async def test_the_bot_gets_a_link_of_its_own_that_it_can_fetch_without_a_token(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    await upload(client, conversation_id, form(file_part("a.png", PIXEL)))
    (attachment,) = attached(bot, conversation_id)
    assert attachment["contentUrl"].startswith(f"{bot.service_url(conversation_id)}/v3/directline/attachments/")
    assert (attachment["contentType"], attachment["name"]) == ("image/png", "a.png")
    fetched = await fetch(attachment["contentUrl"])
    assert (fetched.status, fetched.body) == (200, PIXEL)
    assert fetched.headers["Content-Type"] == "image/png"


@pytest.mark.item(114)
async def test_a_bot_that_fails_on_an_upload_takes_nothing_away(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    bot.answer(500)
    assert (await upload(client, conversation_id, JPEG, ONE_FILE)).error == (502, "BotRejectedActivity")
    await bot.refuse()
    assert (await upload(client, conversation_id, JPEG, ONE_FILE)).error == (502, "BotError")
    links = [each["attachments"][0]["contentUrl"] for each in await client.all_activities(conversation_id)]
    assert [(await fetch(link)).body for link in links] == [JPEG, JPEG]


async def test_the_deadline_of_an_upload_counts_from_its_end(tmp_path: Path) -> None:
    """8.6: an upload may take longer than a bot may."""
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, bot_timeout_s=1) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        started = (await client.start()).conversation_id
        bot.answer(delay=0.2)

        async def slow() -> AsyncIterator[bytes]:
            for _ in range(8):
                yield JPEG
                await asyncio.sleep(0.5)

        path = f"/conversations/{started}/upload?userId=u1"
        answer = await client.request("POST", path, data=slow(), headers=ONE_FILE)
        assert answer.status == 200, answer
        assert (await fetch(await link_of(client, started))).body == JPEG * 8


async def test_an_upload_that_falls_silent_or_hangs_up_leaves_nothing(tmp_path: Path) -> None:
    async with (
        Landline(tmp_path / "data", body_stall_s=0.5) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        started = (await client.start()).conversation_id
        head = (
            f"POST /v3/directline/conversations/{started}/upload?userId=u1 HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {SECRET}\r\nContent-Length: 2000000\r\n\r\n"
        )
        for hangs_up in (False, True):
            reader, writer = await asyncio.open_connection("127.0.0.1", landline.port)
            writer.write(head.encode() + bytes(1_000_000))
            async with asyncio.timeout(10):
                while not kept(landline):
                    await asyncio.sleep(0.02)
                if hangs_up:
                    writer.transport.abort()
                else:
                    assert b" 408 " in (await reader.read()).splitlines()[0]
                    writer.close()
                while kept(landline):
                    await asyncio.sleep(0.02)
        assert await client.all_activities(started) == []


# What bots attach


async def attach(bot: ScriptedBot, conversation_id: str, **body: object) -> Answer:
    """Upload an attachment (bot 3.6)."""
    url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/attachments"
    data = io.BytesIO(json.dumps(body).encode())
    return await bot.request("POST", url, data=data, headers={"Content-Type": "application/json"})


def text_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.bot_item(65, 66)
async def test_what_a_bot_attaches_can_be_asked_about_and_fetched(bot: ScriptedBot, conversation_id: str) -> None:
    original, thumbnail = os.urandom(1000), os.urandom(100)
    answer = await attach(
        bot,
        conversation_id,
        type="image/png",
        name="chart.png",
        originalBase64=text_of(original),
        thumbnailBase64=text_of(thumbnail),
    )
    assert answer.status == 201
    assert list(answer.json) == ["id"]
    service_url = bot.service_url(conversation_id)
    known = f"{service_url}/v3/attachments/{answer.json['id']}"
    assert (await bot.request("GET", known)).json == {
        "name": "chart.png",
        "type": "image/png",
        "views": [{"viewId": "original", "size": 1000}, {"viewId": "thumbnail", "size": 100}],
    }
    public = f"{service_url.partition('/b/')[0]}/v3/attachments/{answer.json['id']}"
    for base in (known, public):
        for view, content in (("original", original), ("thumbnail", thumbnail)):
            fetched = await fetch(f"{base}/views/{view}", Origin="http://shop.example")
            assert (fetched.status, fetched.body) == (200, content)
            assert fetched.headers["Content-Type"] == "image/png"
            assert fetched.headers["Content-Disposition"].startswith("inline;")
            assert fetched.headers["Access-Control-Allow-Origin"] == "http://shop.example"
        assert (await fetch(f"{base}/views/original", Range="bytes=990-")).body == original[990:]


@pytest.mark.bot_item(65, 68)
@pytest.mark.parametrize("nothing", [{}, {"thumbnailBase64": None}, {"thumbnailBase64": ""}])
async def test_without_thumbnail_there_is_one_view_and_either_alphabet_will_do(
    bot: ScriptedBot, conversation_id: str, nothing: dict[str, object]
) -> None:
    content = b"<html>\xfb\xff\xfe"
    for text in (
        text_of(content),
        base64.urlsafe_b64encode(content).decode(),
        base64.urlsafe_b64encode(content).decode().rstrip("="),
    ):
        answer = await attach(
            bot, conversation_id, type="text/html", name="x/page.html", originalBase64=text, **nothing
        )
        base = f"{bot.service_url(conversation_id)}/v3/attachments/{answer.json['id']}"
        known = (await bot.request("GET", base)).json
        assert known == {"name": "page.html", "type": "text/html", "views": [{"viewId": "original", "size": 9}]}
        fetched = await fetch(f"{base}/views/original")
        assert fetched.body == content
        assert fetched.headers["X-Content-Type-Options"] == "nosniff"
        assert fetched.headers["Content-Disposition"].startswith("attachment;")
        assert (await fetch(f"{base}/views/thumbnail")).status == 404


@pytest.mark.bot_item(67)
async def test_what_is_not_there_is_404_with_an_error_object(bot: ScriptedBot, conversation_id: str) -> None:
    service_url = bot.service_url(conversation_id)
    answer = await attach(bot, conversation_id, type="text/plain", name="a", originalBase64="QQ==")
    known = f"{service_url}/v3/attachments/{answer.json['id']}"
    for url in (
        f"{service_url}/v3/attachments/unknown",
        f"{service_url}/v3/attachments/unknown/views/original",
        f"{known}/views/other",
        f"{known}/views",
        known.replace("/b/", "/b/x"),
        f"{known.replace('/b/', '/b/x')}/views/original",
    ):
        missing = await bot.request("GET", url)
        assert missing.status == 404, url
        assert missing.json["error"]["code"] == "BadArgument"
        assert missing.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_what_a_bot_may_not_attach(bot: ScriptedBot, conversation_id: str) -> None:
    for body, error in (
        ({"type": "image/png"}, (400, "MissingProperty")),
        ({"originalBase64": "not base64!"}, (400, "BadArgument")),
        ({"originalBase64": 5}, (400, "BadArgument")),
        ({"originalBase64": text_of(bytes(20 * 1024 * 1024))}, (413, "MessageSizeTooBig")),
    ):
        answer = await attach(bot, conversation_id, **body)
        assert (answer.status, answer.json["error"]["code"]) == error
    url = f"{bot.service_url(conversation_id)}/v3/conversations/unknown-one/attachments"
    assert (await bot.request("POST", url, json={})).status == 404


@pytest.mark.bot_item(65)
async def test_a_bot_that_takes_its_time_over_uploads_holds_up_no_other_bot(tmp_path: Path) -> None:
    """As many as one bot may have on their way come and come to no end; one more is told in time that it was not kept,
    and can be repeated then."""
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, bot_timeout_s=3, drain_s=0) as landline,
        Operator(landline) as operator,
        DirectLine(landline.directline, SECRET) as client,
    ):
        await operator.add_bot("second", bot.endpoint)
        others = client.using(await operator.add_site("second-site", "second"))
        slow, quick = [(await started(each, bot)).conversation_id for each in (client, others)]
        path = bot.service_url(slow).removeprefix(landline.url) + f"/v3/conversations/{slow}/attachments"
        file = {"type": "text/plain", "name": "a.txt", "originalBase64": text_of(b"quick")}
        writers = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", landline.port)
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9000\r\n\r\n".encode()
            )
            # That it shall come says who is ready to read it.
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writers.append(writer)
        late = await attach(bot, slow, **file)
        assert (late.status, late.json["error"]["code"]) == (503, "ServiceError")
        assert "nothing was stored" in late.json["error"]["message"]
        assert int(late.headers["Retry-After"]) >= 1
        assert (await attach(bot, quick, **file)).status == 201
        for writer in writers:
            writer.transport.abort()
        async with asyncio.timeout(5):
            while (await attach(bot, slow, **file)).status != 201:
                await asyncio.sleep(0.02)


@pytest.mark.item(191)
async def test_a_bots_internal_links_lead_clients_to_the_public_base(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    answer = await attach(bot, conversation_id, type="image/png", name="a.png", originalBase64=text_of(PIXEL))
    service_url = bot.service_url(conversation_id)
    internal = f"{service_url}/v3/attachments/{answer.json['id']}/views/original"
    url = (await client.reconnect(conversation_id)).stream_url
    async with client.stream(url) as stream:
        said = {
            "type": "message",
            "text": f"see {internal}, not {service_url}/v3/conversations",
            "attachments": [{"contentType": "image/png", "contentUrl": internal}],
            "channelData": {"deep": [{"image": internal}]},
        }
        escaped = json.dumps({"type": "message", "text": internal}).replace("/", "\\/")
        await bot.send(conversation_id, said)
        path = f"{service_url}/v3/conversations/{conversation_id}/activities"
        await bot.request("POST", path, data=escaped, headers={"Content-Type": "application/json"})
        await bot.send(conversation_id, {"type": "typing", "text": internal})
        await stream.until(lambda stream: len(stream.activities) == 3)
        shown = stream.activities
    public = f"{service_url.partition('/b/')[0]}/v3/attachments/{answer.json['id']}/views/original"
    assert public.startswith(client.domain.removesuffix("/v3/directline"))
    for first, second in (shown[:2], await client.all_activities(conversation_id)):
        assert first["attachments"][0]["contentUrl"] == public
        assert first["channelData"] == {"deep": [{"image": public}]}
        assert first["text"] == f"see {public}, not {service_url}/v3/conversations"
        assert second["text"] == public
    assert shown[2]["text"] == public
    assert (await fetch(public)).body == PIXEL


async def test_a_bot_that_shows_a_clients_file_again_gives_away_no_key(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    await upload(client, conversation_id, form(file_part("a.png", PIXEL)))
    (attachment,) = attached(bot, conversation_id)
    assert "/b/" in attachment["contentUrl"]
    await bot.send(conversation_id, {"type": "message", "attachments": [attachment]})
    mine, again = await client.all_activities(conversation_id)
    assert again["attachments"] == mine["attachments"]
    assert "/b/" not in json.dumps(again)


# Crashes


async def test_an_upload_survives_a_kill_and_its_link_too(tmp_path: Path) -> None:
    async with Landline(tmp_path / "data") as landline, DirectLine(landline.directline, SECRET) as client:
        started = (await client.start()).conversation_id
        assert (await upload(client, started, JPEG, ONE_FILE)).error == (502, "BotError")
        await landline.restart(kill=True)
        assert (await fetch(await link_of(client, started))).body == JPEG


async def test_no_entry_points_at_nothing_whenever_the_server_is_killed(tmp_path: Path) -> None:
    """`kill -9` at random moments of a storm of uploads: what is in the log can be fetched, and has its bytes."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    acknowledged: set[str] = set()
    contents: dict[str, bytes] = {}

    async def storm(client: DirectLine, conversation_id: str) -> None:
        while True:
            name, content = f"{len(contents)}.bin", chance.randbytes(chance.choice((1, 5000, 900_000)))
            contents[name] = content
            answer = await upload(client, conversation_id, form(file_part(name, content)))
            assert answer.error == (502, "BotError"), answer
            acknowledged.add(name)

    async with Landline(tmp_path / "data") as landline, DirectLine(landline.directline, SECRET) as client:
        started = (await client.start()).conversation_id
        for _ in range(4):
            storms = [asyncio.create_task(storm(client, started)) for _ in range(4)]
            before = len(acknowledged)
            async with asyncio.timeout(20):
                while len(acknowledged) < before + 3:
                    await asyncio.sleep(chance.random() / 20)
            await landline.kill()
            results = await asyncio.gather(*storms, return_exceptions=True)
            assert not [each for each in results if isinstance(each, AssertionError)]
            await landline.start()
            log = await client.all_activities(started)
            found = {each["attachments"][0]["name"]: each["attachments"][0]["contentUrl"] for each in log}
            assert acknowledged <= found.keys()
            for name, link in found.items():
                fetched: Fetched = await fetch(link)
                assert (fetched.status, fetched.body) == (200, contents[name])


async def test_a_kill_between_file_and_entry_leaves_nothing_after_the_next_start(tmp_path: Path) -> None:
    """The moment that chance may miss above: the real server, but its first append is the end of it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "from landline.stores.sqlite import SqliteStore\n"
        "async def append(self, *_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "SqliteStore.append = append\n"
    )
    search = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    dying = Landline(tmp_path / "data", environment={"PYTHONPATH": search})
    await dying.start()
    async with DirectLine(dying.directline, SECRET) as client:
        started = (await client.start()).conversation_id
        with pytest.raises(aiohttp.ClientError):
            await upload(client, started, JPEG, ONE_FILE)
        await dying.kill()
        in_place, aside = kept(dying)
        assert in_place.samefile(aside)
        assert JPEG in in_place.read_bytes()
        async with Landline(tmp_path / "data", port=dying.port) as restarted:
            assert await client.all_activities(started) == []
            await until(lambda: kept(restarted) == set(), "knows that no message came to it")
            assert (await upload(client, started, JPEG, ONE_FILE)).error == (502, "BotError")
            assert (await fetch(await link_of(client, started))).body == JPEG
            assert len(kept(restarted)) == 1
