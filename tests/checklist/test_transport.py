"""Transport, errors and CORS over the wire (spec 2, 3; checklist A).

What does not exist yet is not asked for: 429 (part of item 12), `session/getsessionid` (14, but for what all other
endpoints leave out). Attachment links (part of 22) have a file of their own.
"""

from __future__ import annotations

import asyncio
import re
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from landline.conformance.directline import CONVERSATION_ID, WATERMARK, Activity, Answer, DirectLine, dumps, edited
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.wires import DEADLINE_S, Response, Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://www.example.org"
LIMIT = 262_144
"""Default of `activity_bytes` (spec 10)."""
UNKNOWN = "NoSuchConversation0000"
MESSAGE: Activity = {"type": "message", "from": {"id": "user"}, "text": "hello"}
METHODS = {
    "/tokens/generate": {"POST"},
    "/tokens/refresh": {"POST"},
    "/conversations": {"POST"},
    "/conversations/{id}": {"GET"},
    "/conversations/{id}/activities": {"GET", "POST"},
    "/conversations/{id}/upload": {"POST"},
    "/attachments/{id}/a.png": {"GET", "HEAD"},
    "/conversations/{id}/stream": {"GET"},
}
"""What spec 5 documents and this step has."""


def percent(text: str) -> str:
    """Every character percent-encoded: more than any client does, and the same text."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


async def ask(landline: Landline, *lines: str, body: bytes = b"") -> Response:
    """Send these lines of a request and nothing else; the next answer."""

    def talk() -> Response:
        with Wire(socket.create_connection(("127.0.0.1", landline.port), DEADLINE_S)) as wire:
            wire.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            return wire.response()

    return await asyncio.to_thread(talk)


async def chunked(body: bytes) -> AsyncIterator[bytes]:
    """A body of undeclared length."""
    for begin in range(0, len(body), 65536):
        yield body[begin : begin + 65536]


def nested(depth: int) -> bytes:
    """An activity of so many levels."""
    return b'{"type":"message","from":{"id":"user"},"value":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


class World(NamedTuple):
    """What a call needs. `client` has the secret, `page` a token of the started conversation `id`."""

    client: DirectLine
    page: DirectLine
    id: str
    stream_url: str
    bot: ScriptedBot

    async def rejected(self) -> Answer:
        """A send that the bot does not take."""
        self.bot.answer(500)
        return await self.page.send(self.id, MESSAGE)


@pytest.fixture
def world(client: DirectLine, bot: ScriptedBot) -> Callable[[str | None], Awaitable[World]]:
    """A new conversation, seen from a page of that origin, or from none."""

    async def make(origin: str | None = None) -> World:
        seen_from = client.at(origin) if origin else client
        started = await seen_from.start()
        page = seen_from.using(started.token)
        return World(seen_from, page, started.conversation_id, started.stream_url, bot)

    return make


MakeWorld = Callable[[str | None], Awaitable[World]]
Call = Callable[[World], Awaitable[Answer]]
ANSWERS: dict[str, tuple[int, str | None, Call]] = {
    "generate": (200, None, lambda w: w.client.generate()),
    "refresh": (200, None, lambda w: w.page.refresh()),
    "start": (201, None, lambda w: w.client.start()),
    "start again": (200, None, lambda w: w.page.start()),
    "reconnect": (200, None, lambda w: w.page.reconnect(w.id)),
    "activities": (200, None, lambda w: w.page.activities(w.id)),
    "send": (200, None, lambda w: w.page.send(w.id, MESSAGE)),
    "bad syntax": (400, "BadSyntax", lambda w: w.client.request("POST", "/conversations", data=b"{")),
    "bad argument": (400, "BadArgument", lambda w: w.client.request("POST", "/conversations", data=b"[1]")),
    "missing property": (400, "MissingProperty", lambda w: w.page.send(w.id, {"from": {"id": "user"}})),
    "stream without upgrade": (400, "BadArgument", lambda w: w.client.request("GET", _http(w.stream_url))),
    "no credential": (401, "BadArgument", lambda w: w.page.using(None).activities(w.id)),
    "bad credential": (403, "BadArgument", lambda w: w.page.using("nonsense").activities(w.id)),
    "foreign conversation": (403, "BadArgument", lambda w: w.page.activities(UNKNOWN)),
    "unknown conversation": (404, "BadArgument", lambda w: w.client.activities(UNKNOWN)),
    "unknown path": (404, "BadArgument", lambda w: w.client.request("GET", "/nowhere")),
    "wrong method": (405, "BadArgument", lambda w: w.client.request("PUT", "/conversations")),
    "too large": (413, "MessageSizeTooBig", lambda w: w.page.send(w.id, {**MESSAGE, "text": "x" * LIMIT})),
    "too long": (414, "BadArgument", lambda w: w.page.activities(w.id, "x" * 8192)),
    "media type": (415, "BadArgument", lambda w: w.page.send(w.id, MESSAGE, headers={"Content-Type": "text/xml"})),
    "bot rejects": (502, "BotRejectedActivity", lambda w: w.rejected()),
    "handshake without ticket": (401, "BadArgument", lambda w: w.page.handshake(edited(w.stream_url, t=None))),
    "handshake with a bad ticket": (403, "BadArgument", lambda w: w.page.handshake(edited(w.stream_url, t="x"))),
    "handshake elsewhere": (404, "BadArgument", lambda w: w.page.handshake(w.page.domain + "/nowhere")),
}
"""One of every kind of answer: status, error code, how to get it."""


def _http(url: str) -> str:
    return re.sub(r"^ws", "http", url)


class TestEveryAnswer:
    @pytest.mark.item(1, 2, 3, 12, 13, 14)
    @pytest.mark.parametrize("name", ANSWERS)
    async def test_has_the_common_headers_and_can_be_read_by_a_page(self, world: MakeWorld, name: str) -> None:
        """Of 14 only this: no endpoint but `getsessionid`, which is not there yet, sends the credentials header. 429 of
        12 comes with throttling."""
        status, code, call = ANSWERS[name]
        plain, in_a_page = await call(await world(None)), await call(await world(ORIGIN))
        for answer in (plain, in_a_page):
            assert answer.status == status
            assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "Access-Control-Allow-Credentials" not in answer.headers
            if code is not None:
                assert list(answer.json) == ["error"]
                assert answer.json["error"]["code"] == code
                assert isinstance(answer.json["error"]["message"], str)
        ids = [answer.headers["X-Correlating-OperationId"] for answer in (plain, in_a_page)]
        assert all(ids)
        assert len(set(ids)) == 2
        assert in_a_page.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert in_a_page.headers["Vary"] == plain.headers["Vary"] == "Origin"
        exposed = in_a_page.headers["Access-Control-Expose-Headers"].lower().replace(" ", "").split(",")
        assert {"retry-after", "x-correlating-operationid", "x-directline-replay"} <= set(exposed)
        assert "Access-Control-Allow-Origin" not in plain.headers

    @pytest.mark.item(2, 13)
    async def test_that_opens_a_stream_has_them_too(self, world: MakeWorld) -> None:
        """What a proxy keeps of a URL with a ticket is no business of the page's next link."""
        for origin in (None, ORIGIN):
            there = await world(origin)
            answer = await there.page.handshake(there.stream_url)
            assert answer.status == 101
            assert answer.headers["X-Correlating-OperationId"]
            assert answer.headers.getall("Referrer-Policy") == ["no-referrer"]
            assert answer.headers.get("Access-Control-Allow-Origin") == origin
            assert answer.headers["Vary"] == "Origin"
            assert ("Access-Control-Expose-Headers" in answer.headers) == (origin is not None)

    async def test_can_be_found_in_the_log_by_its_operation_id(self, landline: Landline, client: DirectLine) -> None:
        answer = await client.activities(UNKNOWN)
        operation = answer.headers["X-Correlating-OperationId"]
        async with asyncio.timeout(DEADLINE_S):
            while operation not in landline.log:
                await asyncio.sleep(0.01)

    async def test_leaves_no_credential_in_the_log(self, landline: Landline, world: MakeWorld) -> None:
        there = await world(None)
        await there.page.activities(there.id)
        async with there.client.stream(there.stream_url) as stream:
            assert stream.open
        await there.page.handshake(edited(there.stream_url, t=there.page.credential))
        await there.page.request("GET", _http(there.stream_url))
        refused = await there.client.activities("X" * 20)
        async with asyncio.timeout(DEADLINE_S):
            while refused.headers["X-Correlating-OperationId"] not in landline.log:
                await asyncio.sleep(0.01)
        ticket = re.search(r"[?&]t=([^&]+)", there.stream_url)
        assert ticket is not None
        for credential in (SECRET, str(there.page.credential), ticket[1]):
            assert credential not in landline.log

    @pytest.mark.item(19, 20)
    async def test_names_conversations_and_positions_in_characters_that_need_no_encoding(
        self, world: MakeWorld
    ) -> None:
        for _ in range(20):
            there = await world(None)
            generated = await there.client.generate()
            for conversation_id in (there.id, generated.conversation_id):
                assert CONVERSATION_ID.fullmatch(conversation_id)
            watermarks = [(await there.page.activities(there.id)).watermark]
            async with there.client.stream(there.stream_url) as stream:
                await there.page.send(there.id, MESSAGE)
                await stream.next_activity()
            watermarks += [each["watermark"] for each in stream.sets]
            watermarks.append((await there.page.activities(there.id)).watermark)
            reconnected = await there.page.reconnect(there.id, watermarks[-1])
            found = re.search(r"[?&]watermark=([^&]*)", reconnected.stream_url)
            assert found is not None
            for watermark in (*watermarks, found[1]):
                assert WATERMARK.fullmatch(watermark)


class TestPaths:
    @pytest.mark.item(4)
    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
    @pytest.mark.parametrize(
        "path",
        ["", "/nowhere", "/tokens", "/conversations/connect", "/conversations/{id}/nowhere", "/.."],
    )
    async def test_that_lead_nowhere_are_404(
        self, client: DirectLine, conversation_id: str, method: str, path: str
    ) -> None:
        """`/conversations/connect` belongs to another protocol; read as a conversation's path it is unknown all the
        same, or the method is not for it."""
        answer = await client.request(method, path.format(id=conversation_id))
        if path == "/conversations/connect" and method != "GET":
            assert answer.error == (405, "BadArgument")
        else:
            assert answer.error == (404, "BadArgument")

    @pytest.mark.item(5)
    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
    @pytest.mark.parametrize("path", METHODS)
    async def test_say_which_methods_they_have(
        self, client: DirectLine, conversation_id: str, method: str, path: str
    ) -> None:
        answer = await client.request(method, path.format(id=conversation_id))
        if method in METHODS[path]:
            assert answer.status != 405
        else:
            assert answer.error == (405, "BadArgument")
            assert METHODS[path] <= {allowed.strip() for allowed in answer.headers["Allow"].split(",")}

    @pytest.mark.item(5)
    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    @pytest.mark.parametrize("speaking", ["", "/multimodal"])
    async def test_of_streams_say_so_to_who_asks_for_an_upgrade_as_well(
        self, landline: Landline, conversation_id: str, method: str, speaking: str
    ) -> None:
        """And before anything is said of the credential, which is missing (3.4)."""
        answer = await ask(
            landline,
            f"{method} /v3/directline/conversations/{conversation_id}/stream{speaking} HTTP/1.1",
            "Host: here",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        assert (answer.status, answer.error["code"]) == (405, "BadArgument")
        assert "GET" in answer.headers["allow"]

    @pytest.mark.item(3, 4, 5, 12)
    @pytest.mark.parametrize("method", ["FOO", "post", "Get", "PROPFIND", "PLAY"])
    async def test_say_so_to_methods_that_nobody_knows(self, landline: Landline, method: str) -> None:
        """3.4: the route comes before the method, and a method that HTTP knows is no other than one it does not."""
        for path, status, allowed in (("/conversations", 405, "POST"), ("/nowhere", 404, None)):
            first = f"{method} /v3/directline{path} HTTP/1.1"
            answer = await ask(landline, first, "Host: here", f"Origin: {ORIGIN}")
            assert (answer.status, answer.error["code"]) == (status, "BadArgument")
            assert answer.headers.get("allow") == allowed
            assert answer.headers["access-control-allow-origin"] == ORIGIN

    async def test_are_asked_as_ever_by_who_offers_a_websocket_where_there_is_no_stream(
        self, landline: Landline, conversation_id: str
    ) -> None:
        """RFC 9110, section 7.8: an offer that is not taken is ignored. Where there are streams: checklist H."""
        offer = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x")
        here, body = f"/v3/directline/conversations/{conversation_id}", dumps(MESSAGE)
        for first, status, sent in (
            (f"GET {here} HTTP/1.1", 200, b""),
            (f"POST {here}/activities HTTP/1.1", 200, body),
            (f"GET {here}/activities HTTP/1.1", 200, b""),
            (f"GET {here}/upload HTTP/1.1", 405, b""),
            (f"GET {here}/streams HTTP/1.1", 404, b""),
        ):
            lines = (first, "Host: here", f"Authorization: Bearer {SECRET}", *offer, f"Content-Length: {len(sent)}")
            assert (await ask(landline, *lines, body=sent)).status == status, first

    @pytest.mark.item(10)
    @pytest.mark.parametrize("path", METHODS)
    async def test_answer_a_preflight_without_credentials(self, landline: Landline, path: str) -> None:
        """Every path of this step; `getsessionid` comes later."""
        async with DirectLine(landline.directline) as nobody:
            answer = await nobody.at(ORIGIN).request("OPTIONS", path.format(id=UNKNOWN))
        assert answer.status == 204
        assert answer.body == b""
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.headers["Vary"] == "Origin"
        assert answer.headers["Access-Control-Max-Age"] == "7200"
        methods = {method.strip() for method in answer.headers["Access-Control-Allow-Methods"].split(",")}
        assert methods == {"GET", "POST", "OPTIONS"}

    @pytest.mark.item(11)
    @pytest.mark.parametrize("asked", ["authorization,content-type,x-ms-bot-agent,x-requested-with", None])
    @pytest.mark.parametrize("path", METHODS)
    async def test_let_a_page_send_what_directlinejs_sends(
        self, landline: Landline, path: str, asked: str | None
    ) -> None:
        headers = {"Access-Control-Request-Method": "POST"}
        if asked is not None:
            headers["Access-Control-Request-Headers"] = asked
        async with DirectLine(landline.directline) as nobody:
            answer = await nobody.at(ORIGIN).request("OPTIONS", path.format(id=UNKNOWN), headers=headers)
        allowed = {name.strip().lower() for name in answer.headers["Access-Control-Allow-Headers"].split(",")}
        assert {"authorization", "content-type", "x-ms-bot-agent", "x-requested-with"} <= allowed
        if asked is None:
            assert {"accept", "idempotency-key"} <= allowed

    @pytest.mark.item(15)
    @pytest.mark.parametrize("slash", ["", "/"])
    async def test_mean_the_same_with_one_trailing_slash(
        self, client: DirectLine, conversation_id: str, slash: str
    ) -> None:
        here = f"/conversations/{conversation_id}"
        generated = await client.request("POST", f"/tokens/generate{slash}")
        assert generated.status == 200
        assert (await client.using(generated.token).request("POST", f"/tokens/refresh{slash}")).status == 200
        assert (await client.request("POST", f"/conversations{slash}")).status == 201
        sent = await client.request("POST", f"{here}/activities{slash}", json=MESSAGE)
        assert sent.status == 200
        read = await client.request("GET", f"{here}/activities{slash}?watermark=0")
        assert [each["id"] for each in read.activities] == [sent.json["id"]]
        reconnected = await client.request("GET", f"{here}{slash}?watermark=0")
        assert reconnected.conversation_id == conversation_id
        url = reconnected.stream_url.replace("/stream?", f"/stream{slash}?")
        async with client.stream(url) as stream:
            assert (await stream.next_activity())["id"] == sent.json["id"]

    @pytest.mark.item(16)
    async def test_mean_the_same_percent_encoded(self, client: DirectLine, conversation_id: str) -> None:
        first, second = [(await client.send(conversation_id, text)).json["id"] for text in ("one", "two")]
        page = await client.activities(conversation_id)
        assert [each["id"] for each in page.activities] == [first, second]
        odd = percent(conversation_id)
        assert (await client.activities(odd, percent(page.watermark))).json == {
            "activities": [],
            "watermark": page.watermark,
        }
        assert [each["id"] for each in (await client.activities(odd, percent("-"))).activities] == [first, second]
        third = (await client.send(odd, "three")).json["id"]
        behind = await client.activities(odd, percent(page.watermark))
        assert [each["id"] for each in behind.activities] == [third]
        reconnected = await client.reconnect(odd, percent(page.watermark))
        assert reconnected.conversation_id == conversation_id
        url = reconnected.stream_url.replace(conversation_id, odd).replace(page.watermark, percent(page.watermark))
        async with client.stream(url) as stream:
            assert (await stream.next_activity())["id"] == third
        path = f"/conversations/{odd}/{percent('activities')}?{percent('watermark')}={percent(page.watermark)}"
        assert (await client.request("GET", path)).json == behind.json

    async def test_keep_their_segments_whatever_an_id_holds(self, client: DirectLine, conversation_id: str) -> None:
        for id_ in (
            f"{conversation_id}%2Factivities",
            f"{conversation_id}%2F",
            f"..%2F{conversation_id}",
            "%FF",
            "%00",
        ):
            assert (await client.reconnect(id_)).error == (404, "BadArgument")
            assert (await client.send(id_, MESSAGE)).error == (404, "BadArgument")
        assert (await client.all_activities(conversation_id)) == []

    @pytest.mark.item(21)
    async def test_may_have_8_kib_and_not_a_byte_more(self, client: DirectLine, conversation_id: str) -> None:
        target = f"/v3/directline/conversations/{conversation_id}/activities?watermark="
        room = 8192 - len(target)
        assert (await client.activities(conversation_id, "x" * room)).status == 200
        assert (await client.activities(conversation_id, "x" * (room + 1))).error == (414, "BadArgument")


class TestBodies:
    @pytest.mark.item(6)
    @pytest.mark.parametrize("path", ["/conversations", "/tokens/generate", "/conversations/{id}/activities"])
    @pytest.mark.parametrize("body", [b"{", b"{}x", b"{'a':1}", b'{"a":NaN}', b'{"a":"\xff"}', b'{"a":' * 201])
    async def test_that_are_not_json_are_bad_syntax(
        self, client: DirectLine, conversation_id: str, path: str, body: bytes
    ) -> None:
        answer = await client.request("POST", path.format(id=conversation_id), data=body)
        assert answer.error == (400, "BadSyntax")

    @pytest.mark.item(7)
    @pytest.mark.parametrize("path", ["/conversations", "/tokens/generate", "/conversations/{id}/activities"])
    @pytest.mark.parametrize("body", [b"[1]", b"[{}]", b'"x"', b"1", b"true"])
    async def test_that_are_no_objects_are_bad_arguments(
        self, client: DirectLine, conversation_id: str, path: str, body: bytes
    ) -> None:
        answer = await client.request("POST", path.format(id=conversation_id), data=body)
        assert answer.error == (400, "BadArgument")

    @pytest.mark.parametrize("depth", [200, 201])
    async def test_may_be_nested_200_levels(self, client: DirectLine, conversation_id: str, depth: int) -> None:
        answer = await client.request("POST", f"/conversations/{conversation_id}/activities", data=nested(depth))
        assert answer.status == (200 if depth == 200 else 400)
        if depth > 200:
            assert answer.code == "BadSyntax"

    @pytest.mark.item(8)
    @pytest.mark.parametrize(
        "kind", ["application/xml", "text/xml", "text/plain", "application/x-www-form-urlencoded", "nonsense", "*/*"]
    )
    @pytest.mark.parametrize("path", ["/conversations", "/tokens/generate", "/conversations/{id}/activities"])
    async def test_of_other_media_types_are_refused(
        self, client: DirectLine, conversation_id: str, kind: str, path: str
    ) -> None:
        path, headers = path.format(id=conversation_id), {"Content-Type": kind}
        answer = await client.request("POST", path, data=dumps(MESSAGE), headers=headers)
        assert answer.error == (415, "BadArgument")

    @pytest.mark.item(9)
    @pytest.mark.parametrize(
        "kind",
        [
            None,
            "application/json",
            "text/json",
            "application/json; charset=utf-8",
            "APPLICATION/JSON ; x=y",
            "text/JSON;",
        ],
    )
    async def test_are_json_whatever_parameters_their_type_has_and_without_one(
        self, client: DirectLine, conversation_id: str, kind: str | None
    ) -> None:
        headers = {"Content-Type": kind} if kind else {}
        path = f"/conversations/{conversation_id}/activities"
        sent = await client.request("POST", path, data=dumps(MESSAGE), headers=headers)
        assert sent.status == 200
        assert [each["text"] for each in await client.all_activities(conversation_id)] == ["hello"]
        generated = await client.request("POST", "/tokens/generate", data=dumps({"user": {"id": "u"}}), headers=headers)
        assert generated.status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            ["Content-Length: 0"],
            ["Content-Type: application/json"],
            ["Content-Type: application/json", "Content-Length: 0"],
            ["Transfer-Encoding: chunked"],
            ["Transfer-Encoding: chunked", "Content-Type: text/xml"],
        ],
        ids=" ".join,
    )
    @pytest.mark.parametrize(("path", "status"), [("/tokens/generate", 200), ("/conversations", 201)])
    async def test_may_be_left_out_in_every_way_there_is(
        self, landline: Landline, path: str, status: int, headers: list[str]
    ) -> None:
        end = b"0\r\n\r\n" if headers[:1] == ["Transfer-Encoding: chunked"] else b""
        answer = await ask(
            landline,
            f"POST /v3/directline{path} HTTP/1.1",
            "Host: here",
            f"Authorization: Bearer {SECRET}",
            *headers,
            body=end,
        )
        assert answer.status == status

    async def test_of_undeclared_length_are_measured_while_they_are_read(
        self, client: DirectLine, conversation_id: str
    ) -> None:
        path = f"/conversations/{conversation_id}/activities"
        spare = LIMIT - len(dumps({**MESSAGE, "text": ""}))
        for text, expected in (("x" * spare, 200), ("x" * (spare + 1), 413)):
            answer = await client.request("POST", path, data=chunked(dumps({**MESSAGE, "text": text})))
            assert answer.status == expected
        assert len(await client.all_activities(conversation_id)) == 1


BAD_ACTIVITIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "BadSyntax"),
    "not JSON": (b'{"type":"message","from":{"id":"u"}', 400, "BadSyntax"),
    "not UTF-8": (b'{"type":"message","from":{"id":"u"},"text":"\xc3"}', 400, "BadSyntax"),
    "UTF-16": (dumps(MESSAGE).decode().encode("utf-16"), 400, "BadSyntax"),
    "too deep": (
        nested(201),
        400,
        "BadSyntax",
    ),
    "an array": (dumps([MESSAGE]), 400, "BadArgument"),
    "null": (b"null", 400, "BadArgument"),
    "half a surrogate in a name": (b'{"type":"message","from":{"id":"u"},"\\ud83d":1}', 400, "BadArgument"),
    "half a surrogate in the type": (b'{"type":"m\\ud83d","from":{"id":"u"}}', 400, "BadArgument"),
    "half a surrogate in the sender": (b'{"type":"message","from":{"id":"\\ud83d"}}', 400, "BadArgument"),
    "no type": (b'{"from":{"id":"u"}}', 400, "MissingProperty"),
    "empty type": (b'{"type":"","from":{"id":"u"}}', 400, "MissingProperty"),
    "numeric type": (b'{"type":1,"from":{"id":"u"}}', 400, "BadArgument"),
    "no sender": (b'{"type":"message"}', 400, "MissingProperty"),
    "sender without id": (b'{"type":"message","from":{"name":"U"}}', 400, "MissingProperty"),
    "sender is a string": (b'{"type":"message","from":"u"}', 400, "BadArgument"),
    "odd sender": (b'{"type":"message","from":{"id":1.5}}', 400, "BadArgument"),
    "sender is the bot": (b'{"type":"message","from":{"id":"bot"}}', 400, "BadArgument"),
    "attachments": (b'{"type":"message","from":{"id":"u"},"attachments":{}}', 400, "BadArgument"),
    "entities": (b'{"type":"message","from":{"id":"u"},"entities":"x"}', 400, "BadArgument"),
    "contactRelationUpdate": (b'{"type":"contactRelationUpdate","from":{"id":"u"}}', 400, "BadArgument"),
    "too large": (dumps({**MESSAGE, "text": "x" * LIMIT}), 413, "MessageSizeTooBig"),
}


BAD_PARAMETERS: dict[str, tuple[bytes, int, str]] = {
    "not JSON": (b'{"user":', 400, "BadSyntax"),
    "an array": (b"[1]", 400, "BadArgument"),
    "user is a string": (b'{"user":"u"}', 400, "BadArgument"),
    "odd user": (b'{"user":{"id":1.5}}', 400, "BadArgument"),
    "empty user": (b'{"user":{"id":""}}', 400, "BadArgument"),
    "long user": (dumps({"user": {"id": "u" * 257}}), 400, "BadArgument"),
    "unproven dl_": (b'{"user":{"id":"dl_u"}}', 400, "BadArgument"),
    "origins are a string": (b'{"trustedOrigins":"https://example.org"}', 400, "BadArgument"),
    "malformed origin": (b'{"trustedOrigins":["example"]}', 400, "BadArgument"),
    "too large": (dumps({"locale": "x" * LIMIT}), 413, "MessageSizeTooBig"),
}


class TestNothingRefused:
    """What is answered with an error of the client's leaves no trace: not in the log, not with the bot (3.5)."""

    @pytest.mark.parametrize("name", BAD_ACTIVITIES)
    async def test_is_stored_or_forwarded_of_an_activity(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, name: str
    ) -> None:
        body, status, code = BAD_ACTIVITIES[name]
        async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
            refused = await client.request("POST", f"/conversations/{conversation_id}/activities", data=body)
            assert refused.error == (status, code)
            assert (await client.activities(conversation_id)).json == {"activities": [], "watermark": "0"}
            # The bot hears of a conversation in order: once this one is there, nothing can come before it.
            sent = await client.send(conversation_id, "after it")
            assert sent.json["id"].endswith("|0000000")
            assert await stream.next_activity() == (await client.all_activities(conversation_id))[0]
            assert stream.texts == ["after it"]
        assert [each["type"] for each in bot.heard(conversation_id) if each["type"] != "conversationUpdate"] == [
            "message"
        ]
        await self._assert_members(bot, conversation_id, {"bot", "user"})

    async def _assert_members(self, bot: ScriptedBot, conversation_id: str, ids: set[str]) -> None:
        added = [member["id"] for each in bot.heard(conversation_id) for member in each.get("membersAdded", [])]
        assert set(added) == ids
        assert len(added) == len(ids)

    @pytest.mark.parametrize("name", BAD_PARAMETERS)
    async def test_is_started_by_a_start(self, client: DirectLine, bot: ScriptedBot, name: str) -> None:
        body, status, code = BAD_PARAMETERS[name]
        generated = await client.generate()
        page = client.using(generated.token)
        refused = await page.request("POST", "/conversations", data=body)
        assert refused.error == (status, code)
        assert (await page.activities(generated.conversation_id)).error == (404, "BadArgument")
        assert (await page.start()).status == 201
        await page.send(generated.conversation_id, "after it")
        assert bot.heard(generated.conversation_id)[-1]["text"] == "after it"
        await self._assert_members(bot, generated.conversation_id, {"bot", "user"})


TWO_FAULTS: dict[str, tuple[int, str, Call]] = {
    "path before credential": (404, "BadArgument", lambda w: w.client.using(None).request("GET", "/nowhere")),
    "path before length": (
        404,
        "BadArgument",
        lambda w: w.client.request("POST", "/nowhere", data=bytes(LIMIT + 1)),
    ),
    "method before credential": (
        405,
        "BadArgument",
        lambda w: w.client.using(None).request("DELETE", f"/conversations/{w.id}"),
    ),
    "method before length": (
        405,
        "BadArgument",
        lambda w: w.client.request("PUT", "/conversations", data=bytes(LIMIT + 1)),
    ),
    "path before length of the URL": (
        404,
        "BadArgument",
        lambda w: w.client.request("GET", "/nowhere?" + "x" * 8192),
    ),
    "method before length of the URL": (
        405,
        "BadArgument",
        lambda w: w.client.request("DELETE", f"/conversations/{w.id}?" + "x" * 8192),
    ),
    "length of the URL before credential": (
        414,
        "BadArgument",
        lambda w: w.client.using(None).request("GET", f"/conversations/{w.id}?" + "x" * 8192),
    ),
    "length of a stream's URL before its ticket": (
        414,
        "BadArgument",
        lambda w: w.client.handshake(edited(w.stream_url, t="x" * 8192)),
    ),
    "path before length of the URL in a handshake": (
        404,
        "BadArgument",
        lambda w: w.client.handshake(w.page.domain + "/nowhere?" + "x" * 8192),
    ),
    "declared length before credential": (
        413,
        "MessageSizeTooBig",
        lambda w: w.client.using(None).send(w.id, {**MESSAGE, "text": "x" * LIMIT}),
    ),
    "declared length before media type": (
        413,
        "MessageSizeTooBig",
        lambda w: w.client.send(w.id, {**MESSAGE, "text": "x" * LIMIT}, headers={"Content-Type": "text/xml"}),
    ),
    "credential before undeclared length": (
        401,
        "BadArgument",
        lambda w: w.client.using(None).request("POST", "/conversations", data=chunked(bytes(LIMIT + 1))),
    ),
    "scope before undeclared length": (403, "BadArgument", lambda w: _flood(w.page, UNKNOWN)),
    "existence before undeclared length": (404, "BadArgument", lambda w: _flood(w.client, UNKNOWN)),
    "media type before undeclared length": (415, "BadArgument", lambda w: _flood(w.client, w.id, "text/xml")),
    "length before syntax": (413, "MessageSizeTooBig", lambda w: _flood(w.client, w.id)),
    "existence before media type": (
        404,
        "BadArgument",
        lambda w: w.client.send(UNKNOWN, MESSAGE, headers={"Content-Type": "text/xml"}),
    ),
    "existence before syntax": (
        404,
        "BadArgument",
        lambda w: w.client.request("POST", f"/conversations/{UNKNOWN}/activities", data=b"{"),
    ),
    "media type before syntax": (
        415,
        "BadArgument",
        lambda w: w.client.request(
            "POST", f"/conversations/{w.id}/activities", data=b"{", headers={"Content-Type": "text/xml"}
        ),
    ),
    "kind of credential before syntax": (
        403,
        "BadArgument",
        lambda w: w.page.request("POST", "/tokens/generate", data=b"{"),
    ),
    "kind of credential before media type": (
        403,
        "BadArgument",
        lambda w: w.page.request("POST", "/tokens/generate", data=b"x", headers={"Content-Type": "text/xml"}),
    ),
}


class TestOrderOfChecks:
    """Two faults at a time; the one that stands first in 3.4 is answered."""

    @pytest.mark.item(17)
    async def test_nobody_learns_which_conversations_exist_without_a_credential(self, client: DirectLine) -> None:
        nobody = client.using(None)
        for answer in (
            await nobody.activities(UNKNOWN),
            await nobody.reconnect(UNKNOWN),
            await nobody.send(UNKNOWN, MESSAGE),
            await nobody.handshake(f"{client.domain}/conversations/{UNKNOWN}/stream"),
            await nobody.request("GET", f"/conversations/{UNKNOWN}/stream"),
        ):
            assert answer.error == (401, "BadArgument")
        for answer in (
            await client.using("x").activities(UNKNOWN),
            await client.handshake(f"{client.domain}/conversations/{UNKNOWN}/stream?t=x"),
        ):
            assert answer.error == (403, "BadArgument")

    @pytest.mark.item(18)
    async def test_a_token_learns_nothing_of_other_conversations(
        self, client: DirectLine, conversation_id: str, world: MakeWorld
    ) -> None:
        there = await world(None)
        for other in (UNKNOWN, conversation_id, "x", f"{there.id}x", there.id.swapcase()):
            for answer in (
                await there.page.activities(other),
                await there.page.reconnect(other),
                await there.page.send(other, MESSAGE),
                await there.page.request("POST", f"/conversations/{other}/activities", data=b"{"),
                await there.page.handshake(there.stream_url.replace(there.id, other)),
            ):
                assert answer.error == (403, "BadArgument")

    @pytest.mark.parametrize("name", TWO_FAULTS)
    async def test_the_first_fault_is_answered(self, world: MakeWorld, name: str) -> None:
        status, code, call = TWO_FAULTS[name]
        there = await world(None)
        assert (await call(there)).error == (status, code)
        assert await there.page.all_activities(there.id) == []

    async def test_syntax_is_answered_before_the_bot_is_asked(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        await bot.refuse()
        answer = await client.request("POST", f"/conversations/{conversation_id}/activities", data=b"{")
        assert answer.error == (400, "BadSyntax")

    async def test_a_declared_length_is_answered_before_a_byte_of_it_has_come(
        self, landline: Landline, conversation_id: str
    ) -> None:
        answer = await ask(
            landline,
            f"POST /v3/directline/conversations/{conversation_id}/activities HTTP/1.1",
            "Host: here",
            f"Content-Length: {LIMIT + 1}",
        )
        assert (answer.status, answer.error["code"]) == (413, "MessageSizeTooBig")

    async def test_a_handshake_is_refused_for_its_credential_before_its_form(
        self, landline: Landline, client: DirectLine, conversation_id: str
    ) -> None:
        url = (await client.reconnect(conversation_id)).stream_url
        path = url[url.index("/v3") :]
        without_key = ("Host: here", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        for query, status in ((path, 400), (path.split("?")[0], 401), (f"{path.split('?')[0]}?t=x", 403)):
            answer = await ask(landline, f"GET {query} HTTP/1.1", *without_key)
            assert (answer.status, answer.error["code"]) == (status, "BadArgument")


async def _flood(client: DirectLine, conversation_id: str, kind: str = "application/json") -> Answer:
    """A body over the limit that does not say so, and that is no JSON either."""
    return await client.request(
        "POST",
        f"/conversations/{conversation_id}/activities",
        data=chunked(b"{" * (LIMIT + 1)),
        headers={"Content-Type": kind},
    )


class TestPublicUrls:
    @pytest.mark.item(22)
    @pytest.mark.parametrize("base", ["https://chat.example.org/some/prefix", "http://chat.example.org:8080/p/"])
    async def test_begin_with_the_configured_base_and_its_prefix(self, tmp_path: Path, base: str) -> None:
        """Stream URLs; attachment links are shown with uploads. Behind a proxy that keeps the prefix, and behind one
        that takes it away, the server is found at the same path."""
        async with (
            Landline(tmp_path / "data", public_url=base, drain_s=0) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            started = await client.start()
            again = await client.using(started.token).start()
            reconnected = await client.reconnect(started.conversation_id)
            here = f"{base.rstrip('/')}/v3/directline/conversations/{started.conversation_id}/stream?"
            for answer in (started, again, reconnected):
                assert answer.stream_url.startswith(re.sub("^http", "ws", here))
            inside = f"{landline.url}{started.stream_url[started.stream_url.index('/', 8) :]}"
            for url in (inside, re.sub(r"/[^?]*/v3/", "/v3/", inside[len(landline.url) :])):
                async with client.stream(url if "://" in url else landline.url + url) as stream:
                    assert stream.open

    async def test_are_what_the_request_was_sent_to_where_none_is_configured(self, client: DirectLine) -> None:
        for host in ("chat.example.org", "chat.example.org:8443", "127.0.0.1:1", "[::1]:3000"):
            headers = {"Host": host, "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
            answer = await client.request("POST", "/conversations", headers=headers)
            assert answer.stream_url.startswith(f"ws://{host}/v3/directline/conversations/")

    @pytest.mark.parametrize("host", ["a b", "a/b", "a?b", "a@b", "a:b", "", "a:1:2"])
    async def test_are_not_made_from_a_host_that_is_none(self, landline: Landline, host: str) -> None:
        answer = await ask(
            landline, "POST /v3/directline/conversations HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {SECRET}"
        )
        assert (answer.status, answer.error["code"]) == (400, "BadArgument")

    async def test_follow_a_trusted_proxy(self, tmp_path: Path) -> None:
        forwarded = {
            "Host": "inside:3000",
            "X-Forwarded-Host": "evil.example, chat.example.org",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Prefix": "/prefix/",
        }
        async with (
            Landline(tmp_path / "data", trusted_proxies="127.0.0.1", drain_s=0) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            answer = await client.request("POST", "/conversations", headers=forwarded)
            assert answer.stream_url.startswith("wss://chat.example.org/prefix/v3/directline/conversations/")


class TestOrigins:
    async def test_may_be_limited_by_the_operator(self, tmp_path: Path) -> None:
        async with Landline(tmp_path / "data", cors_origins=f"{ORIGIN},https://b.example", drain_s=0) as landline:
            for origin, allowed in ((ORIGIN, True), ("https://b.example", True), ("https://c.example", False)):
                for method, path, *more in (
                    ("OPTIONS", "/conversations"),
                    ("POST", "/conversations", f"Authorization: Bearer {SECRET}"),
                    ("GET", "/nowhere"),
                    ("GET", f"/conversations/{'x' * 8192}"),
                    ("GET", f"/conversations/{UNKNOWN}/stream", "Connection: Upgrade", "Upgrade: websocket"),
                ):
                    answer = await ask(
                        landline,
                        f"{method} /v3/directline{path} HTTP/1.1",
                        "Host: here",
                        f"Origin: {origin}",
                        *more,
                    )
                    assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
                    assert answer.headers["vary"] == "Origin"


async def test_the_reference_grammar_of_a_bot_is_a_lasting_uuid(client: DirectLine, conversation_id: str) -> None:
    answers = [await client.start(), await client.start(), await client.reconnect(conversation_id)]
    (grammar,) = {answer.json["referenceGrammarId"] for answer in answers}
    assert str(uuid.UUID(grammar)) == grammar
