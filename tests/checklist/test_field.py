"""What clients and bots in use write that is not what the documentation shows (docs/explanation/compatibility.md).

Each case is one spelling, with what comes of it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from landline.conformance.directline import Activity, DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.uploads import fetch
from support.landline import SECRET, Landline

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGE: Activity = {"type": "message", "from": {"id": "u"}, "text": "x"}
JSON = {"Content-Type": "application/json"}

NOTHING = dict.fromkeys(
    [
        "id",
        "timestamp",
        "localTimestamp",
        "localTimezone",
        "serviceUrl",
        "channelId",
        "conversation",
        "recipient",
        "textFormat",
        "attachmentLayout",
        "membersAdded",
        "membersRemoved",
        "topicName",
        "historyDisclosed",
        "locale",
        "speak",
        "inputHint",
        "summary",
        "suggestedActions",
        "attachments",
        "entities",
        "channelData",
        "action",
        "replyToId",
        "value",
        "name",
        "relatesTo",
        "code",
        "expiration",
        "deliveryMode",
    ]
)
"""The members that typed clients write as `null` where they have nothing to say."""


async def post(client: DirectLine, conversation_id: str, body: bytes, **headers: str) -> tuple[int, Any]:
    """Send what somebody wrote; the status, and the code and message of an error."""
    named = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.request("POST", f"/conversations/{conversation_id}/activities", data=body, headers=named)
    return answer.status, answer.json.get("error", {})


# Clients


async def test_members_that_are_null_are_as_good_as_absent(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    sender = {"id": "u", "name": None, "role": None, "aadObjectId": None}
    written = {**NOTHING, **MESSAGE, "from": sender}
    assert await post(client, conversation_id, json.dumps(written).encode()) == (200, {})
    (echo,) = await client.all_activities(conversation_id)
    heard = bot.heard(conversation_id)[-1]
    assert heard["type"] == "message"
    for seen in (echo, heard):
        assert seen["id"] == echo["id"]
        assert seen["timestamp"] == echo["timestamp"]
        assert seen["conversation"] == {"id": conversation_id}
        assert seen["from"]["id"] == "u"
    assert heard["recipient"]["id"] == "bot"
    assert heard["serviceUrl"] == f"{bot.service_url(conversation_id)}/"


@pytest.mark.parametrize("content_type", ["", ";", "; charset=utf8", ';charset="UTF-8"', "; charset=utf-8; v=1"])
async def test_parameters_of_a_media_type_mean_nothing(
    client: DirectLine, conversation_id: str, content_type: str
) -> None:
    for kind in ("application/json", "text/json", "Application/JSON"):
        body = json.dumps(MESSAGE).encode()
        assert await post(client, conversation_id, body, Content_Type=kind + content_type) == (200, {})


@pytest.mark.parametrize(
    ("body", "code", "hint"),
    [
        (json.dumps(MESSAGE).encode("utf-16"), "BadSyntax", "UTF-8"),
        (b"{'type':'message'}", "BadSyntax", "JSON"),
        (b'{"type":"message","value":NaN}', "BadSyntax", "JSON"),
        (b'{"type":"message",}', "BadSyntax", "JSON"),
        (json.dumps(json.dumps(MESSAGE)).encode(), "BadArgument", "object"),
        (b"null", "BadArgument", "object"),
        (b'{"Type":"message","From":{"Id":"u"},"Text":"x"}', "MissingProperty", "lower case"),
        (b'{"type":"message","from":"u"}', "BadArgument", "'from'"),
        (b'{"type":"message","from":null}', "MissingProperty", "'from.id'"),
    ],
)
async def test_what_cannot_be_meant_is_refused_in_words_that_say_why(
    client: DirectLine, conversation_id: str, body: bytes, code: str, hint: str
) -> None:
    status, error = await post(client, conversation_id, body)
    assert (status, error["code"]) == (400, code)
    assert hint in error["message"]
    assert await client.all_activities(conversation_id) == []


async def test_a_byte_order_mark_is_ignored_on_every_way_in(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    mark = b"\xef\xbb\xbf"
    assert await post(client, conversation_id, mark + json.dumps({**MESSAGE, "text": "ü"}).encode()) == (200, {})
    for body, status in ((b"", 201), (b"null", 201), (b'{"user":{"id":"u"}}', 201), (b"[]", 400)):
        answer = await client.request("POST", "/conversations", data=mark + body, headers=JSON)
        assert answer.status == status
    url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/activities"
    answer = await bot.request("POST", url, data=mark + b'{"type":"message","text":"re"}', headers=JSON)
    assert answer.status == 200
    assert [each["text"] for each in await client.all_activities(conversation_id)] == ["ü", "re"]


@pytest.mark.item(199)
@pytest.mark.parametrize("body", [b"null", b" null\r\n", b"", b"\n", b"{}", b'{"user":null}'])
async def test_every_spelling_of_nothing_asks_for_a_token_without_user(client: DirectLine, body: bytes) -> None:
    for path, status in (("/tokens/generate", 200), ("/conversations", 201)):
        answer = await client.request("POST", path, data=body, headers=JSON)
        assert answer.status == status, (path, answer.body)
        refreshed = await client.using(answer.token).request("POST", "/tokens/refresh", data=body, headers=JSON)
        assert refreshed.status == 200


@pytest.mark.parametrize("parameters", [{"User": {"Id": "u", "Name": None}, "ETag": None}, {"user": {"ID": "u"}}])
async def test_token_parameters_are_read_whatever_the_case_of_their_names(
    client: DirectLine, parameters: dict[str, Any]
) -> None:
    token = (await client.request("POST", "/tokens/generate", json=parameters)).token
    started = await client.using(token).start()
    body = json.dumps({"type": "message", "from": {"id": "somebody else"}}).encode()
    assert await post(client.using(started.token), started.conversation_id, body) == (200, {})
    (echo,) = await client.all_activities(started.conversation_id)
    assert echo["from"]["id"] == "u"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("bearer {}", 200),
        ("BEARER  {}", 200),
        ("Bearer {} ", 200),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("{}", 401),
        ("BotConnector {}", 401),
        ("Bearer: {}", 401),
        ("Bearer Bearer {}", 401),
        ("Bearer undefined", 403),
        ('Bearer "{}"', 403),
    ],
)
async def test_a_credential_is_one_word_behind_bearer(landline: Landline, authorization: str, status: int) -> None:
    async with DirectLine(landline.directline) as client:
        named = {"Authorization": authorization.format(SECRET)}
        assert (await client.request("POST", "/tokens/generate", headers=named)).status == status
        assert (await client.request("POST", f"/tokens/generate?secret={SECRET}&s={SECRET}")).status == 401


@pytest.mark.parametrize("watermark", ["", "=", "=null", "=undefined", "=None", "=%22%22", "=%20", "={watermark}"])
async def test_a_watermark_that_says_nothing_means_the_beginning(
    client: DirectLine, conversation_id: str, watermark: str
) -> None:
    assert (await post(client, conversation_id, json.dumps(MESSAGE).encode()))[0] == 200
    path = f"/conversations/{conversation_id}"
    answer = await client.request("GET", f"{path}/activities?watermark{watermark}")
    assert (answer.status, len(answer.json["activities"])) == (200, 1)
    assert (await client.request("GET", f"{path}/?watermark{watermark}")).status == 200


# Bots


@pytest.mark.item(191)
@pytest.mark.bot_item(5, 100)
@pytest.mark.parametrize("join", ["{}v3", "{}/v3", "{}//v3", "{}v3/"], ids=["none", "one", "two", "both"])
@pytest.mark.parametrize("saved", [False, True], ids=["told", "saved without its slash"])
async def test_a_bot_may_join_service_url_and_path_with_or_without_a_slash(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, join: str, saved: bool
) -> None:
    service_url = bot.heard(conversation_id)[-1]["serviceUrl"]
    if saved:
        service_url = service_url.removesuffix("/")
        join = join.replace("{}v3", "{}/v3")
    base = join.format(service_url)
    activities = f"{base}/conversations/{conversation_id}/activities"
    sent = await bot.request("POST", activities, json={"type": "message", "text": "sent"})
    assert sent.status == 200
    replied = await bot.request("POST", f"{activities}/{sent.json['id']}/", json={"type": "message", "text": "replied"})
    assert replied.status == 200
    changed = await bot.request("PUT", f"{activities}/{sent.json['id']}", json={"type": "message", "text": "changed"})
    assert changed.status == 200
    file = {"type": "text/plain", "name": "a.txt", "originalBase64": "Ynl0\r\nZXM=\r\n"}
    uploaded = await bot.request("POST", f"{base}/conversations/{conversation_id}/attachments", json=file)
    assert uploaded.status == 201
    link = f"{base}/attachments/{uploaded.json['id']}/views/original"
    shows = {"type": "message", "attachments": [{"contentType": "text/plain", "contentUrl": link}]}
    assert (await bot.request("POST", activities, json=shows)).status == 200
    assert (await fetch(link)).body == b"bytes", "also where it is not rewritten"

    *_, original, reply, update, shown = await client.all_activities(conversation_id)
    assert (original["text"], reply["replyToId"], update["text"]) == ("sent", original["id"], "changed")
    public = f"{client.domain.removesuffix('/v3/directline')}/v3/attachments/"
    shown_link = shown["attachments"][0]["contentUrl"]
    assert shown_link.startswith(public)
    assert (await fetch(shown_link)).body == b"bytes"


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        (
            {"recipient": None, "from": None, "conversation": None, "id": None, "replyToId": None, "attachments": None},
            200,
        ),
        ({"from": "bot", "recipient": "u"}, 200),
        ({"conversation": {"id": "another"}, "conversationId": "another"}, 200),
        ({"timestamp": "01.12.2026", "localTimestamp": 1484000000}, 200),
        ({"type": None, "Type": "message"}, 400),
    ],
)
async def test_what_a_bot_says_beside_its_message_is_no_reason_to_lose_it(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, extra: dict[str, Any], status: int
) -> None:
    answer = await bot.send(conversation_id, {"type": "message", "text": "x", **extra})
    assert answer.status == status
    shown = await client.all_activities(conversation_id)
    assert [each["conversation"]["id"] for each in shown] == [conversation_id] * (status == 200)


@pytest.mark.bot_item(47)
@pytest.mark.parametrize("bar", ["|", "%7C", "%7c"])
async def test_an_id_has_one_meaning_in_each_spelling(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, bar: str
) -> None:
    first = (await bot.send(conversation_id, {"type": "message", "text": "before"})).json["id"]
    url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/activities/{first.replace('|', bar)}"
    for given in ({"id": None}, {"id": first}, {}):
        body = {"type": "message", "text": "after", **given}
        assert (await bot.request("PUT", url, json=body)).json == {"id": first}
    assert (await bot.request("PATCH", url, json={"type": "message"})).status == 405
    assert (await bot.request("PUT", url, json={"text": "no type"})).status == 400
