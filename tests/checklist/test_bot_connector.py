"""What a bot may send, what it is answered, and what clients see of it (bot 3; section 8, 33 to 54).

Repeats with one `x-ms-client-request-id` (43) are in `test_repeats.py`; the operations besides send and reply have
files of their own.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import pytest_asyncio
from yarl import URL

from landline.conformance.directline import Activity, DirectLine
from landline.conformance.scripted_bot import Answer, ScriptedBot
from landline.conformance.uploads import fetch
from support.landline import SECRET, Landline, free_port
from support.small_disk import SmallDisk
from support.streams import has_entries, log_of, say, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGE = {"type": "message", "text": "hi"}
LIMIT = 4 * 1024 * 1024
"""The largest activity of a bot (bot 3)."""


@pytest_asyncio.fixture(loop_scope="module")
async def only(client: DirectLine, conversation_id: str) -> AsyncIterator[object]:
    """What clients see of the one activity in the conversation."""

    async def see() -> Activity:
        (activity,) = await client.all_activities(conversation_id)
        return activity

    yield see


def error_of(answer: Answer) -> tuple[int, str]:
    """Status and code; fails where it is no error object of bot 3."""
    assert answer.headers["Content-Type"].split(";")[0] == "application/json", answer
    assert list(answer.json) == ["error"], answer
    error = answer.json["error"]
    assert isinstance(error["message"], str), answer
    assert error["message"], answer
    return answer.status, error["code"]


async def posted(bot: ScriptedBot, conversation_id: str, body: bytes) -> Answer:
    """Send to conversation, with exactly these bytes."""
    url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/activities"
    return await bot.request("POST", url, data=io.BytesIO(body), headers={"Content-Type": "application/json"})


# Answers


@pytest.mark.bot_item(33)
async def test_send_and_reply_are_answered_with_an_id_that_nothing_else_has(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    answers = []
    for kind in ("message", "typing", "event", "trace", "conversationUpdate", "x.custom"):
        answers.append(await bot.send(conversation_id, {"type": kind}))
        answers.append(await bot.reply(conversation_id, "some-id", {"type": kind}))
    assert {answer.status for answer in answers} == {200}
    ids = [answer.json["id"] for answer in answers]
    assert all(isinstance(each, str) and each for each in ids)
    assert len(set(ids)) == len(ids)
    shown = [each["id"] for each in await client.all_activities(conversation_id)]
    assert shown == [ids[number] for number in (0, 1, 4, 5, 10, 11)]


@pytest.mark.bot_item(34)
async def test_what_was_answered_with_200_survives_a_kill_at_that_moment(tmp_path: Path, bot: ScriptedBot) -> None:
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        ids = []
        for round_ in range(3):
            ids += [await say(bot, conversation_id, f"{round_}.{number}") for number in range(5)]
            await landline.restart(kill=True)
            assert [each["id"] for each in await log_of(landline, conversation_id)] == ids


@pytest.mark.bot_item(35)
async def test_a_bot_calls_back_while_our_post_to_it_is_open(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    async def echo(bot: ScriptedBot, activity: Activity) -> None:
        if activity["type"] == "message":
            for _ in range(3):
                answer = await asyncio.wait_for(bot.send(activity["conversation"]["id"], MESSAGE), 5)
                assert answer.status == 200, answer

    bot.on_activity = echo
    assert (await asyncio.wait_for(client.send(conversation_id, "hello"), 10)).status == 200
    assert [each["text"] for each in await client.all_activities(conversation_id)] == ["hello", "hi", "hi", "hi"]


# What becomes of the members


@pytest.mark.bot_item(36, 37)
async def test_a_reply_is_to_what_the_path_says_whatever_that_is(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    """An id that exists, none that does, a random UUID, the conversation's own id: bots send all of them. What is none
    of this conversation's, clients are not made to wait for (D-37)."""
    known = await say(bot, conversation_id, "known")
    ours = (known, f"{conversation_id}|9999999")
    for target in (*ours, "0b6cdd9a-6a0a-4b29-8a0c-3f1d7c1c9d5e", conversation_id):
        answer = await bot.reply(conversation_id, target, {**MESSAGE, "replyToId": "from the body"})
        assert answer.status == 200, (target, answer)
    for given in ({"replyToId": known}, {"replyToId": "given"}, {}):
        assert (await bot.send(conversation_id, {**MESSAGE, **given})).status == 200
    shown = await client.all_activities(conversation_id)
    assert [each.get("replyToId") for each in shown[1:]] == [*ours, None, None, known, None, None]


@pytest.mark.bot_item(38)
@pytest.mark.parametrize("given", [None, "", "mine", 7, {"x": 1}, "x" * 1000])
async def test_the_id_in_the_body_is_ignored(
    bot: ScriptedBot, client: DirectLine, conversation_id: str, given: object
) -> None:
    answer = await bot.send(conversation_id, {**MESSAGE, "id": given, "timestamp": given})
    assert answer.status == 200, answer
    (shown,) = await client.all_activities(conversation_id)
    assert shown["id"] == answer.json["id"] == f"{conversation_id}|0000000"
    assert shown["timestamp"].endswith("Z")


@pytest.mark.bot_item(39)
@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"id": "user", "role": "user", "name": "Ann"}, {"id": "bot", "role": "bot", "name": "Ann"}),
        ({"id": "user"}, {"id": "bot", "role": "bot", "name": "Bot"}),
        (None, {"id": "bot", "role": "bot", "name": "Bot"}),
        ("user", {"id": "bot", "role": "bot", "name": "Bot"}),
        ({"ID": "user", "Role": "user"}, {"id": "bot", "role": "bot", "name": "Bot"}),
    ],
)
async def test_a_bot_cannot_speak_as_the_user(
    bot: ScriptedBot, client: DirectLine, conversation_id: str, given: object, shown: Activity
) -> None:
    """Neither by `from` nor, for clients that read names without regard to case, by `From`."""
    for name in ("from", "From"):
        answer = await bot.send(conversation_id, {**MESSAGE, name: given})
        assert answer.status == 200, answer
    first, second = await client.all_activities(conversation_id)
    assert first["from"] == shown
    assert second["from"] == {"id": "bot", "role": "bot", "name": "Bot"}
    assert "From" not in second


@pytest.mark.bot_item(40)
async def test_the_conversation_of_the_path_wins(bot: ScriptedBot, client: DirectLine, conversation_id: str) -> None:
    other = await started(client, bot)
    forged = {"conversation": {"id": other.conversation_id, "isGroup": True}, "serviceUrl": "https://evil.example"}
    assert (await bot.send(conversation_id, {**MESSAGE, **forged})).status == 200
    (shown,) = await client.all_activities(conversation_id)
    assert shown["conversation"] == {"id": conversation_id}
    assert "serviceUrl" not in shown
    assert await client.all_activities(other.conversation_id) == []


@pytest.mark.bot_item(41)
async def test_what_we_do_not_know_reaches_the_client_as_it_was_written(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    theirs = {
        "text": "Grüße \U0001f600 \u2028",
        "channelData": {"deep": {"list": [1.5, None, "2", {}]}, "big": 2**53 + 1},
        "entities": [{"type": "x", "unknown": {"a": [None]}}],
        "attachments": [{"contentType": "application/vnd.x", "content": {"y": [1, 2]}}],
        "recipient": {"id": "user", "name": "Ann"},
        "x-unknown": [{"kept": True}],
        "importance": None,
    }
    for kind in ("message", "x.custom"):
        async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
            assert (await bot.send(conversation_id, {"type": kind, **theirs})).status == 200
            live = await stream.next_activity()
        replayed = (await client.all_activities(conversation_id))[-1]
        for shown in (live, replayed):
            assert shown["type"] == kind
            assert {name: shown.get(name, "absent") for name in theirs} == theirs


@pytest.mark.bot_item(41)
async def test_bytes_within_values_are_not_touched(bot: ScriptedBot, client: DirectLine, conversation_id: str) -> None:
    """A lone surrogate, a number that no float holds, an escape that nobody needs: what a JSON library would change."""
    body = rb'{"type":"message","text":"\ud83d","channelData":{"n":1.000000000000000000001e2,"s":"\u0041\/"}}'
    assert (await posted(bot, conversation_id, body)).status == 200
    page = (await client.activities(conversation_id)).body
    assert rb'"text":"\ud83d"' in page
    assert rb'{"n":1.000000000000000000001e2,"s":"\u0041\/"}' in page


@pytest.mark.bot_item(42)
async def test_the_order_of_the_log_is_the_order_of_the_answers(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    answered: list[str] = []

    async def send(number: int) -> None:
        answered.append(await say(bot, conversation_id, str(number)))

    for number in range(20):
        await send(number)
    logged = [each["id"] for each in await client.all_activities(conversation_id)]
    assert logged == answered, "one after the other"
    # Of calls under way at the same time nobody can tell which was answered first, but what is answered is behind.
    waves = []
    for wave in range(4):
        before = len(answered)
        await asyncio.gather(*(send(wave) for _ in range(25)))
        waves.append(answered[before:])
    logged = [each["id"] for each in await client.all_activities(conversation_id)]
    assert logged == sorted(answered)
    assert all(max(earlier) < min(later) for earlier, later in itertools.pairwise(waves))


@pytest.mark.bot_item(44)
async def test_equal_sends_are_two_activities(bot: ScriptedBot, client: DirectLine, conversation_id: str) -> None:
    twin = {
        **MESSAGE,
        "id": "same",
        "channelData": {"clientActivityID": "same"},
        "localTimestamp": "2026-01-05T11:00:00",
    }
    answers = [await bot.send(conversation_id, twin) for _ in range(2)]
    ids = [each["id"] for each in await client.all_activities(conversation_id)]
    assert [answer.json["id"] for answer in answers] == ids
    assert len(set(ids)) == 2


@pytest.mark.bot_item(47)
async def test_an_encoded_bar_in_an_id_is_a_bar(bot: ScriptedBot, client: DirectLine, conversation_id: str) -> None:
    """Shown by a reply; update and delete are not there yet."""
    known = await say(bot, conversation_id, "known")
    base = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/activities"
    for spelled in (known, known.replace("|", "%7C"), known.replace("|", "%7c"), quote(known, safe="")):
        answer = await bot.request("POST", URL(f"{base}/{spelled}", encoded=True), json=MESSAGE)
        assert answer.status == 200, (spelled, answer)
    shown = await client.all_activities(conversation_id)
    assert [each["replyToId"] for each in shown[1:]] == [known] * 4


@pytest.mark.bot_item(48)
async def test_conversation_ids_are_of_the_form_that_sdks_leave_whole(client: DirectLine, bot: ScriptedBot) -> None:
    ids = {(await client.start()).conversation_id for _ in range(20)}
    ids |= {(await client.generate()).conversation_id for _ in range(20)}
    assert len(ids) == 40
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{8,64}", each) for each in ids)


# Errors


@pytest.mark.bot_item(49)
async def test_one_byte_too_many_is_413_and_not_one_less(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    frame = json.dumps({"type": "message", "text": ""}).encode()
    full = frame.replace(b'""', b'"' + b"x" * (LIMIT - len(frame)) + b'"')
    assert len(full) == LIMIT
    assert error_of(await posted(bot, conversation_id, full.replace(b'"x', b'"xx'))) == (413, "MessageSizeTooBig")
    assert (await posted(bot, conversation_id, full)).status == 200
    assert len(await client.all_activities(conversation_id)) == 1


@pytest.mark.bot_item(50)
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "BadSyntax"),
        (b"", "BadSyntax"),
        (b'{"type":"message","text":"\xff"}', "BadSyntax"),
        (b'{"type":"message","x":' + b"[" * 300 + b"]" * 300 + b"}", "BadSyntax"),
        (b"[]", "BadArgument"),
        (b'"message"', "BadArgument"),
        (b'{"type":7}', "BadArgument"),
        (b"{}", "MissingProperty"),
        (b'{"type":""}', "MissingProperty"),
        (b'{"type":null,"text":"x"}', "MissingProperty"),
    ],
)
async def test_what_is_no_activity_is_400_and_leaves_nothing(
    bot: ScriptedBot, client: DirectLine, conversation_id: str, body: bytes, code: str
) -> None:
    assert error_of(await posted(bot, conversation_id, body)) == (400, code)
    assert await client.all_activities(conversation_id) == []


@pytest.mark.bot_item(51)
@pytest.mark.parametrize("unknown", ["AAAAAAAAAAAAAAAAAAAAAA", "x", "a" * 300, "a%2Fb", "%00", "%FF", "..%2F.."])
async def test_an_unknown_conversation_is_404_with_an_error_object(
    bot: ScriptedBot, conversation_id: str, unknown: str
) -> None:
    base = f"{bot.service_url(conversation_id)}/v3/conversations/{unknown}/activities"
    for url in (base, f"{base}/some-id"):
        answer = await bot.request("POST", URL(url, encoded=True), json=MESSAGE)
        assert error_of(answer) == (404, "BadArgument"), url


@pytest.mark.bot_item(52, 53)
async def test_every_answer_has_an_operation_id_and_every_error_an_error_object(
    bot: ScriptedBot, conversation_id: str
) -> None:
    """404 besides 51, 405, 415 and 400; 413 and 503 are held against the same by their own tests."""
    base = bot.service_url(conversation_id)
    here = f"{base}/v3/conversations/{conversation_id}/activities"
    answers = [
        await bot.request("POST", here, json=MESSAGE),
        await bot.request("POST", f"{here}/x", json=MESSAGE),
    ]
    assert [answer.status for answer in answers] == [200, 200]
    for method, url, options, expected in (
        ("POST", f"{base}/v3/conversations/unknown-conversation/activities", {"json": MESSAGE}, 404),
        ("GET", f"{base}/v3/nothing", {}, 404),
        ("GET", base, {}, 404),
        ("GET", here, {}, 405),
        ("DELETE", here, {}, 405),
        ("POST", here, {"data": b"<x/>", "headers": {"Content-Type": "application/xml"}}, 415),
        ("POST", here, {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
    ):
        answer = await bot.request(method, url, **options)
        assert error_of(answer)[0] == expected, (method, url, answer)
        answers.append(answer)
    operations = [answer.headers["X-Correlating-OperationId"] for answer in answers]
    assert all(operations)
    assert len(set(operations)) == len(operations)


# Another address


@pytest.mark.bot_item(54)
async def test_a_service_url_with_a_path_prefix_works(tmp_path: Path, bot: ScriptedBot) -> None:
    """Of the operations there are send and reply."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/bots/of/ours"
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, port=port, drain_s=0, service_url=f"{address}/") as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        assert bot.service_url(conversation_id).startswith(f"{address}/b/")
        assert (await bot.send(conversation_id, MESSAGE)).status == 200
        assert (await bot.reply(conversation_id, "x", MESSAGE)).status == 200
        assert len(await client.all_activities(conversation_id)) == 2
        missing = await bot.send("unknown-conversation", MESSAGE, bot.service_url(conversation_id))
        assert error_of(missing) == (404, "BadArgument")
        # A proxy may take the prefix away.
        stripped = bot.service_url(conversation_id).replace("/bots/of/ours", "")
        assert urlsplit(stripped).path.startswith("/b/")
        assert (await bot.send(conversation_id, MESSAGE, stripped)).status == 200


# A disk in trouble


@pytest.mark.bot_item(46)
async def test_a_disk_that_is_full_for_two_seconds_delays_a_bot_and_refuses_it_nothing(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """Most SDKs never repeat a send that failed."""
    with SmallDisk(tmp_path / "disk") as disk:
        async with (
            Landline(disk.path, bot=bot.endpoint, drain_s=0) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            conversation_id = (await started(client, bot)).conversation_id
            await say(bot, conversation_id, "before")
            disk.fill()
            large = {"type": "message", "text": "x" * 200_000}
            sending = [asyncio.create_task(bot.send(conversation_id, large)) for _ in range(4)]
            client_sends = asyncio.create_task(client.send(conversation_id, "of the client"))
            done, _ = await asyncio.wait((*sending, client_sends), timeout=2)
            assert not done, "nobody is answered while the disk is full"
            disk.make_room()
            answers = await asyncio.gather(*sending)
            assert {answer.status for answer in answers} == {200}
            assert (await client_sends).status == 200
            ids = sorted([*(answer.json["id"] for answer in answers), (await client_sends).json["id"]])
            assert [each["id"] for each in await client.all_activities(conversation_id)][1:] == ids


@pytest.mark.bot_item(46)
async def test_a_full_disk_delays_an_upload_and_the_end_of_a_membership_too(tmp_path: Path, bot: ScriptedBot) -> None:
    """Nothing of the attempts that failed is left: only the file that the bot was told of."""
    with SmallDisk(tmp_path / "disk") as disk:
        async with (
            Landline(disk.path, bot=bot.endpoint, drain_s=0, free_space_floor_bytes=4096) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            conversation_id = (await started(client, bot)).conversation_id
            names = [f"{number} {'x' * 250}" for number in range(40)]
            for name in names:
                said = {"type": "message", "text": "hi", "from": {"id": name}}
                assert (await client.send(conversation_id, said)).status == 200
            base = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}"
            disk.fill()
            content = bytes(range(256)) * 2048
            upload = {"type": "image/png", "name": "a.png", "originalBase64": base64.b64encode(content).decode()}
            attaching = asyncio.create_task(bot.request("POST", f"{base}/attachments", json=upload))
            removing = [
                asyncio.create_task(bot.request("DELETE", f"{base}/members/{quote(name, safe='')}")) for name in names
            ]
            done, waiting = await asyncio.wait((attaching, *removing), timeout=2)
            assert {each.result().status for each in done} <= {200}
            assert attaching in waiting
            assert len(waiting) > 1, "the log had room for all of them"
            disk.make_room()
            answers = await asyncio.gather(*removing)
            assert {answer.status for answer in answers} == {200}
            members = (await bot.request("GET", f"{base}/members")).json
            assert [each["id"] for each in members] == ["bot"]
            attached = await attaching
            assert attached.status == 201, attached
            link = f"{bot.service_url(conversation_id)}/v3/attachments/{attached.json['id']}/views/original"
            assert (await fetch(link)).body == content
            assert len([path for path in (disk.path / "blobs").rglob("*") if path.is_file()]) == 1


@pytest.mark.bot_item(45, 52, 53)
async def test_a_503_says_when_to_come_again(tmp_path: Path, bot: ScriptedBot) -> None:
    """There is no limit yet that would answer 429."""
    with SmallDisk(tmp_path / "disk") as disk:
        async with (
            Landline(disk.path, bot=bot.endpoint, drain_s=0, store_wait_s=0.3) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            conversation_id = (await started(client, bot)).conversation_id
            disk.fill()
            answer = await bot.send(conversation_id, {"type": "message", "text": "x" * 200_000})
            assert error_of(answer) == (503, "ServiceError")
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.headers["X-Correlating-OperationId"]
            disk.make_room()
            assert await client.all_activities(conversation_id) == []
            await say(bot, conversation_id, "after")
            await has_entries(client, conversation_id, 1)
