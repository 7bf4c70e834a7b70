"""RFC 6455 as our server speaks it, over raw bytes: what a client may send, must not send, and gets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import os
import struct
import time
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from landline.wire.websocket import WRITE_BUFFER_BYTES, Accept, WebSocket, handshake_answer, handshake_problem
from landline.wire.wheel import Wheel
from support.wires import (
    KEY,
    MAX_MESSAGE_BYTES,
    Recorder,
    Wire,
    Wires,
    close,
    digest,
    handshake,
    masked,
    text,
    until,
)

LOOPS = ["asyncio", "uvloop"] if find_spec("uvloop") else ["asyncio"]

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x81, 0x82, 0x80, 0x88, 0x89, 0x8A
FLOOD = 40_000
FIRST_TEXT, FIRST_BINARY, MORE = 0x01, 0x02, 0x00


@pytest.fixture(scope="module", params=LOOPS)
def wires(request: pytest.FixtureRequest) -> Iterator[Wires]:
    with Wires(request.param, close_timeout_s=0.3) as wires:
        yield wires


@pytest.fixture
def wire(wires: Wires) -> Iterator[Wire]:
    """An open WebSocket to the echo handler."""
    with wires.websocket() as wire:
        yield wire


@pytest.fixture
def plain(wires: Wires) -> Iterator[tuple[Wire, Recorder]]:
    """An open WebSocket and its handler, which only listens."""
    with wires.websocket("/plain") as wire:
        yield wire, wires.handlers[-1]


def ended(recorder: Recorder) -> int | None:
    """Wait until the handler is told that it is over; what it was told."""
    until(lambda: recorder.of("closed"))
    (event,) = recorder.of("closed")
    assert recorder.events[-1] == event
    code: int | None = event[1]
    return code


# The opening handshake


def test_accept_key_is_that_of_the_rfc(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake())
        answer = wire.response()
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert answer.headers["upgrade"] == "websocket"
    assert answer.headers["connection"] == "Upgrade"


def test_every_key_gets_its_own_accept_key(wires: Wires) -> None:
    for _ in range(5):
        key = base64.b64encode(os.urandom(16))
        with wires.connect() as wire:
            wire.send(handshake(key=key))
            expected = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            assert wire.response().headers["sec-websocket-accept"] == expected.decode()


def test_handshake_works_split_at_every_byte() -> None:
    with Wires() as wires, wires.connect() as wire:
        request = handshake()
        wire.drip(*(request[i : i + 1] for i in range(len(request))))
        assert wire.response().status == 101
        wire.send(text("there"))
        assert wire.text() == b"there"


@pytest.mark.parametrize(
    ("offered", "echoed"),
    [
        (["Sec-WebSocket-Protocol: chat"], "chat"),
        (["Sec-WebSocket-Protocol: first, second"], "first"),
        (["Sec-WebSocket-Protocol:  v1.x ,second"], "v1.x"),
        (["Sec-WebSocket-Protocol: one", "Sec-WebSocket-Protocol: two"], "one"),
        ([], None),
        (["Sec-WebSocket-Protocol: not a token"], None),
        (["Sec-WebSocket-Protocol: "], None),
    ],
)
def test_first_subprotocol_is_echoed(wires: Wires, offered: list[str], echoed: str | None) -> None:
    with wires.connect() as wire:
        wire.send(handshake("/echo", *offered))
        answer = wire.response()
    assert answer.status == 101
    assert answer.headers.get("sec-websocket-protocol") == echoed


def test_no_extension_is_negotiated(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake("/echo", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
        answer = wire.response()
    assert answer.status == 101
    assert "sec-websocket-extensions" not in answer.headers


@pytest.mark.parametrize(
    "key", [b"", b"short", b"A" * 24, b"A" * 21 + b"===", b"dGhlIHNhbXBsZSBub25jZQ=", b"*" * 22 + b"=="]
)
def test_malformed_key_is_refused(wires: Wires, key: bytes) -> None:
    with wires.connect() as wire:
        wire.send(handshake(key=key))
        answer = wire.response()
        assert (answer.status, answer.error["code"]) == (400, "BadArgument")
        assert wire.at_end()


def test_missing_key_is_refused(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake().replace(b"Sec-WebSocket-Key", b"X-Something-Else"))
        assert wire.response().status == 400
        assert wire.at_end()


def test_second_key_is_refused(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake("/echo", f"Sec-WebSocket-Key: {KEY.decode()}"))
        assert wire.response().status == 400


@pytest.mark.parametrize("version", ["8", "0", "12", "14", "", "13, 8", "013", "x"])
def test_other_version_is_told_which_one_is_spoken(wires: Wires, version: str) -> None:
    with wires.connect() as wire:
        wire.send(handshake(version=version))
        answer = wire.response()
        assert (answer.status, answer.error["code"]) == (426, "BadArgument")
        assert answer.headers["sec-websocket-version"] == "13"
        assert answer.headers["upgrade"] == "websocket"
        assert wire.at_end()


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "DELETE"])
def test_what_is_no_get_is_no_handshake_but_what_it_is_otherwise(wires: Wires, method: str) -> None:
    before = len(wires.upgrades)
    with wires.connect() as wire:
        wire.send(handshake("/echo", "Content-Length: 5", method=method) + b"hello")
        answer = json.loads(wire.response().body)
        assert (answer["method"], answer["path"], answer["body"]) == (method, "/echo", "hello")
    assert len(wires.upgrades) == before


def test_handshake_of_http_1_0_is_refused(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake().replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert wire.response().status == 400


@pytest.mark.parametrize("body", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_handshake_has_no_body(wires: Wires, body: str) -> None:
    with wires.connect() as wire:
        wire.send(handshake("/echo", body) + b"hello")
        assert wire.response().status == 400


def test_application_sees_the_problem_and_may_refuse_for_its_own_reason_first(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake("/forbidden", version="8"))
        answer = wire.response()
    assert (answer.status, answer.headers["x-why"], answer.body) == (403, "because", b"no")
    assert wires.upgrades[-1].problem == "Sec-WebSocket-Version is not 13"


def test_handler_of_a_refused_handshake_hears_nothing(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake("/plain", version="8"))
        assert wire.response().status == 426
        assert wire.at_end()
    assert wires.handlers[-1].events == []


def test_what_there_is_to_say_at_once_leaves_with_the_answer(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake("/greets"))
        assert wire.response().status == 101
        assert wire.held == b"\x81\x07welcome"
        wire.send(masked(0x88))
        assert wire.text() == b"welcome"
        assert wire.close_frame() == (None, "")


def test_empty_pong_in_pieces_is_heard_once(wires: Wires) -> None:
    with wires.websocket("/echo") as wire:
        pong = masked(0x8A)
        wire.send(pong)
        until(lambda: wires.handlers[-1].of("heard") == [("heard",)])
        wire.drip(pong[:1], pong[1:4], pong[4:])
        wire.drip(pong[:3], pong[3:] + masked(0x81, b"on"))
        assert wire.text() == b"on"
        assert len(wires.handlers[-1].of("heard")) == 4


def test_handshake_alone_is_judged_without_a_connection() -> None:
    good = [(b"sec-websocket-version", b"13"), (b"sec-websocket-key", KEY)]

    def status(*more: tuple[bytes, bytes], http_version: str = "1.1") -> int | None:
        problem = handshake_problem(http_version, [*good, *more], dict(reversed([*good, *more])))
        return None if problem is None else problem[0]

    assert status() is None
    assert status((b"content-length", b"0"), (b"origin", b"https://a"), (b"origin", b"https://b")) is None
    assert status((b"content-length", b"1")) == 400
    assert status(http_version="2.0") == 400
    assert status((b"sec-websocket-key", KEY)) == 400
    assert status((b"sec-websocket-version", b"13")) == 426
    assert handshake_answer(dict(good)).endswith(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


def test_frames_in_the_packet_of_the_handshake_are_read(wires: Wires) -> None:
    with wires.connect() as wire:
        third = text("three")
        wire.send(handshake() + text("one") + text("two") + third[:4])
        assert wire.response().status == 101
        assert [wire.text(), wire.text()] == [b"one", b"two"]
        wire.send(third[4:])
        assert wire.text() == b"three"


def test_frames_sent_while_the_handshake_is_decided_are_read_in_order(wires: Wires) -> None:
    wires.call(wires.decide.clear)
    count = len(wires.upgrades)
    with wires.connect() as wire:
        wire.send(handshake("/later") + text("one"))
        until(lambda: len(wires.upgrades) > count)
        wire.send(text("two"))
        wire.send(text("x" * 60_000) + text("y" * 60_000) + text("z" * 60_000))
        wires.call(wires.decide.set)
        assert wire.response().status == 101
        assert [wire.text(), wire.text()] == [b"one", b"two"]
        assert [wire.text()[:1] for _ in range(3)] == [b"x", b"y", b"z"]


def test_client_that_left_while_the_handshake_was_decided_is_not_opened(wires: Wires) -> None:
    wires.call(wires.decide.clear)
    count, before = len(wires.upgrades), wires.connections()
    wire = wires.connect()
    wire.send(handshake("/later"))
    until(lambda: len(wires.upgrades) > count)
    handler = wires.handlers[-1]
    wire.cut()
    until(lambda: wires.connections() <= before)
    wires.call(wires.decide.set)
    with wires.websocket("/plain"):  # the loop has turned since
        assert handler.events == []


def test_upgrade_on_a_connection_that_served_requests_before(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(b"GET /a HTTP/1.1\r\nHost: here\r\n\r\n")
        assert wire.response().status == 200
        wire.send(handshake())
        assert wire.response().status == 101
        wire.send(text("after"))
        assert wire.text() == b"after"


# Messages


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 128, 1000, 65534, 65535, 65536])
def test_text_of_every_length_form_comes_back(wire: Wire, size: int) -> None:
    payload = (b"abcdefghij" * (size // 10 + 1))[:size]
    wire.send(text(payload))
    assert wire.text() == payload


@pytest.mark.parametrize("size", [0, 1, 3, 7, 125, 126, 65535, 65536])
def test_binary_of_every_length_form_arrives(wire: Wire, size: int) -> None:
    payload = os.urandom(size)
    wire.send(masked(BINARY, payload))
    assert wire.text() == digest(payload)


@pytest.mark.parametrize("size", [65537, 200_000, 1 << 20])
def test_server_sends_messages_of_any_size_in_one_frame(wires: Wires, plain: tuple[Wire, Recorder], size: int) -> None:
    wire, handler = plain
    assert handler.websocket is not None
    wires.call(handler.websocket.send_texts, [b"a" * size])
    assert wire.text() == b"a" * size


def test_many_texts_of_one_call_leave_as_one_frame_each(wires: Wires, plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    assert handler.websocket is not None
    payloads = [b"x" * n for n in range(300)]
    wires.call(handler.websocket.send_texts, payloads)
    assert [wire.text() for _ in payloads] == payloads


@pytest.mark.parametrize("ping", [False, True])
def test_keep_alive_is_an_empty_text_and_a_ping_if_asked(
    wires: Wires, plain: tuple[Wire, Recorder], ping: bool
) -> None:
    wire, handler = plain
    assert handler.websocket is not None
    wires.call(handler.websocket.keep_alive, ping)
    assert wire.text() == b""
    if ping:
        assert wire.frame() == (PING, b"", False)
    wire.send(masked(PONG))
    until(lambda: handler.of("heard"))


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04", b"\0\0\0\x01", b"\x80\0\0\0"])
@pytest.mark.parametrize("size", [1, 5, 126, 4099])
def test_every_mask_is_taken_off(wire: Wire, mask: bytes, size: int) -> None:
    payload = bytes(32 + i % 90 for i in range(size))
    wire.send(masked(TEXT, payload, mask=mask))
    assert wire.text() == payload


@pytest.mark.parametrize(
    "payload",
    ["κόσμε", "\U0001f600", "\u0000", "\U0010ffff", "\ud7ff\ue000", "ﬀ" * 100, "a\u0300", "\ufeff", "\ufffe"],
)
def test_text_may_hold_every_character(wire: Wire, payload: str) -> None:
    wire.send(text(payload))
    assert wire.text() == payload.encode()


def test_frames_split_at_every_byte_boundary(wire: Wire) -> None:
    frames = text("first ☃") + masked(BINARY, b"x" * 130) + masked(FIRST_TEXT, b"a") + masked(CONTINUATION, b"b")
    for cut in range(1, len(frames)):
        wire.drip(frames[:cut], frames[cut:])
        assert wire.text() == "first ☃".encode()
        assert wire.text() == digest(b"x" * 130)
        assert wire.text() == b"ab"


def test_frames_one_byte_at_a_time(wire: Wire) -> None:
    payload = b"y" * 200
    frames = text(payload) + masked(PING, b"p") + close(1000)
    wire.drip(*(frames[i : i + 1] for i in range(len(frames))))
    assert wire.text() == payload
    assert wire.frame() == (PONG, b"p", False)
    assert wire.close_frame() == (1000, "")


def test_hundreds_of_frames_in_one_packet(wire: Wire) -> None:
    wire.send(b"".join(text(str(n)) for n in range(500)))
    assert [wire.text() for _ in range(500)] == [str(n).encode() for n in range(500)]


@pytest.mark.item(212)
@pytest.mark.parametrize(
    ("first", "again", "last"),
    [
        (b"", masked(PING), text("")),
        (b"", masked(PONG), text("")),
        (masked(FIRST_TEXT), masked(MORE), masked(CONTINUATION)),
    ],
    ids=["pings", "pongs", "fragments"],
)
def test_a_flood_of_empty_frames_leaves_turns_to_others(wires: Wires, first: bytes, again: bytes, last: bytes) -> None:
    def turn() -> None:
        turns.append(loop.time())
        if not done:
            loop.call_soon(turn)

    turns: list[float] = []
    done: list[bool] = []
    with wires.websocket("/plain") as wire:
        loop, handler = wires.loop, wires.handlers[-1]
        loop.call_soon_threadsafe(turn)
        wire.send(first + again * FLOOD + last)
        until(lambda: handler.of("text"))
        done.append(True)
    assert len(handler.of("heard")) >= FLOOD
    # While they are read, others have their turn again and again: not 40,000 frames go by between two of them.
    assert sum(later - turn > 0 for turn, later in itertools.pairwise(turns)) >= FLOOD / 1000


@pytest.mark.item(147)
def test_unwanted_messages_do_no_harm(plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    wire.send(text("x") + masked(BINARY, b"x") + text("  ") + text("") + masked(PING))
    assert wire.frame() == (PONG, b"", False)
    assert handler.of("text", "binary") == [("text", b"x"), ("binary", b"x"), ("text", b"  "), ("text", b"")]


def test_handler_hears_before_it_is_told_what(plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    wire.send(text("x"))
    until(lambda: handler.of("text"))
    assert handler.events == [("opened",), ("heard",), ("text", b"x")]


# Fragments


@pytest.mark.parametrize("pieces", [["", ""], ["a", "b"], ["", "", "a", "", "b", ""], ["a"] * 300, ["", "κ", "ό"]])
def test_fragments_become_one_message(wire: Wire, pieces: list[str]) -> None:
    first, *middle, last = [piece.encode() for piece in pieces]
    frames = [masked(FIRST_TEXT, first), *(masked(MORE, piece) for piece in middle), masked(CONTINUATION, last)]
    wire.send(b"".join(frames))
    assert wire.text() == "".join(pieces).encode()


def test_fragments_of_a_binary_message_become_one(wire: Wire) -> None:
    wire.send(masked(FIRST_BINARY, b"\xff") + masked(MORE, b"\xfe") + masked(CONTINUATION, b"\xfd"))
    assert wire.text() == digest(b"\xff\xfe\xfd")


def test_character_may_be_split_between_fragments(wire: Wire) -> None:
    encoded = "\U0001f600".encode()
    for cut in range(1, 4):
        wire.send(masked(FIRST_TEXT, encoded[:cut]) + masked(CONTINUATION, encoded[cut:]))
        assert wire.text() == encoded


def test_ping_between_fragments_is_answered_at_once(wire: Wire) -> None:
    wire.send(masked(FIRST_TEXT, b"a") + masked(PING, b"now"))
    assert wire.frame() == (PONG, b"now", False)
    wire.send(masked(MORE, b"b") + masked(PONG, b"unasked") + masked(CONTINUATION, b"c"))
    assert wire.text() == b"abc"


def test_close_between_fragments_ends_it(wire: Wire) -> None:
    wire.send(masked(FIRST_TEXT, b"a") + close(1001))
    assert wire.close_frame() == (1001, "")
    assert wire.at_end()


def test_message_after_a_fragmented_one_starts_anew(wire: Wire) -> None:
    wire.send(masked(FIRST_TEXT, b"a") + masked(CONTINUATION, b"b") + text("c"))
    assert [wire.text(), wire.text()] == [b"ab", b"c"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_fragmentation_into_any_packets_comes_back_whole(wires: Wires, data: st.DataObject) -> None:
    messages = data.draw(st.lists(st.text(max_size=300), min_size=1, max_size=5))
    stream = b""
    for message in messages:
        encoded = message.encode()
        cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=4)))
        bounds = [0, *cuts, len(encoded)]
        pieces = [encoded[a:b] for a, b in itertools.pairwise(bounds)]
        for number, piece in enumerate(pieces):
            first = (0x80 if number == len(pieces) - 1 else 0) | (1 if number == 0 else 0)
            stream += masked(first, piece, mask=data.draw(st.binary(min_size=4, max_size=4)))
            if data.draw(st.booleans()):
                stream += masked(PONG, data.draw(st.binary(max_size=10)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    bounds = [0, *cuts, len(stream)]
    with wires.websocket() as wire:
        wire.drip(*(stream[a:b] for a, b in itertools.pairwise(bounds)))
        assert [wire.text().decode() for _ in messages] == messages


# What breaks the protocol


def refused_with(wire: Wire, code: int) -> None:
    """The server says why, and ends the connection."""
    got, reason = wire.close_frame()
    assert got == code
    assert reason
    assert wire.at_end()


@pytest.mark.parametrize("first", [0xC1, 0xA1, 0x91, 0xF1, 0xC2, 0xC8, 0xC9, 0xA9, 0x99, 0xC0])
def test_reserved_bits_are_refused(wire: Wire, first: int) -> None:
    wire.send(masked(first, b"x"))
    refused_with(wire, 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("fin", [0x80, 0])
def test_reserved_opcodes_are_refused(wire: Wire, opcode: int, fin: int) -> None:
    wire.send(masked(fin | opcode, b"x"))
    refused_with(wire, 1002)


@pytest.mark.parametrize("first", [TEXT, BINARY, PING, PONG, CLOSE, FIRST_TEXT])
def test_unmasked_frames_are_refused(wire: Wire, first: int) -> None:
    wire.send(bytes([first, 2]) + b"\x03\xe8")
    refused_with(wire, 1002)


@pytest.mark.parametrize("first", [0x08, 0x09, 0x0A])
def test_fragmented_control_frames_are_refused(wire: Wire, first: int) -> None:
    wire.send(masked(first, b""))
    refused_with(wire, 1002)


@pytest.mark.parametrize("first", [CLOSE, PING, PONG])
@pytest.mark.parametrize("size", [126, 127, 70_000])
def test_long_control_frames_are_refused(wire: Wire, first: int, size: int) -> None:
    wire.send(masked(first, b"\x03\xe8" + b"x" * (size - 2)))
    refused_with(wire, 1002)


@pytest.mark.parametrize("frames", [[CONTINUATION], [MORE], [TEXT, CONTINUATION], [FIRST_TEXT, CONTINUATION, MORE]])
def test_continuation_of_nothing_is_refused(plain: tuple[Wire, Recorder], frames: list[int]) -> None:
    wire, _ = plain
    wire.send(b"".join(masked(first, b"x") for first in frames))
    refused_with(wire, 1002)


@pytest.mark.parametrize("second", [TEXT, BINARY, FIRST_TEXT, FIRST_BINARY])
def test_new_message_inside_a_fragmented_one_is_refused(wire: Wire, second: int) -> None:
    wire.send(masked(FIRST_TEXT, b"a") + masked(second, b"b"))
    refused_with(wire, 1002)


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, (1 << 63) + 5])
def test_length_with_its_highest_bit_set_is_refused(wire: Wire, length: int) -> None:
    wire.send(masked(TEXT, head=b"\xff" + struct.pack("!Q", length)))
    refused_with(wire, 1002)


@pytest.mark.parametrize("head", [b"\xfe\0\0", b"\xfe\0\x7d", b"\xff" + bytes(8), b"\xff" + struct.pack("!Q", 65535)])
def test_length_that_is_not_in_its_shortest_form_is_refused(wire: Wire, head: bytes) -> None:
    wire.send(masked(TEXT, head=head))
    refused_with(wire, 1002)


@pytest.mark.item(147)
@pytest.mark.parametrize("length", [MAX_MESSAGE_BYTES + 1, 1 << 20, 1 << 32, (1 << 63) - 1])
@pytest.mark.parametrize("first", [TEXT, BINARY, FIRST_TEXT])
def test_too_long_a_message_is_refused_before_it_has_arrived(wire: Wire, first: int, length: int) -> None:
    wire.send(masked(first, head=b"\xff" + struct.pack("!Q", length)))
    assert wire.close_frame() == (1009, "message-too-big")
    assert wire.at_end()


@pytest.mark.item(147)
def test_client_that_goes_on_sending_too_much_still_reads_why(wire: Wire) -> None:
    wire.send(masked(TEXT, b"x" * (MAX_MESSAGE_BYTES + 1)))
    wire.send(b"x" * 300_000)
    assert wire.close_frame() == (1009, "message-too-big")


def test_limit_counts_all_fragments_of_a_message(wire: Wire) -> None:
    half = b"x" * (MAX_MESSAGE_BYTES // 2)
    wire.send(masked(FIRST_TEXT, half) + masked(CONTINUATION, half))
    assert wire.text() == half + half
    wire.send(masked(FIRST_TEXT, half) + masked(MORE, half) + masked(MORE, b"") + masked(CONTINUATION, b"x"))
    assert wire.close_frame() == (1009, "message-too-big")


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xce\xba\xe1",
        b"abc\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xe2\x82",
    ],
)
class TestTextThatIsNotUtf8:
    def test_is_refused_in_one_frame(self, wire: Wire, payload: bytes) -> None:
        wire.send(masked(TEXT, payload))
        refused_with(wire, 1007)

    def test_is_refused_in_fragments(self, wire: Wire, payload: bytes) -> None:
        wire.send(masked(FIRST_TEXT, b"ok" + payload) + masked(CONTINUATION, b""))
        refused_with(wire, 1007)

    def test_is_fine_as_binary(self, wire: Wire, payload: bytes) -> None:
        wire.send(masked(BINARY, payload))
        assert wire.text() == digest(payload)


def test_bad_text_is_refused_at_the_fragment_that_shows_it(wire: Wire) -> None:
    wire.send(masked(FIRST_TEXT, b"ok") + masked(MORE, b"\xff"))  # the message is not complete
    refused_with(wire, 1007)


def test_nothing_behind_a_broken_frame_is_delivered(plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    wire.send(text("before") + masked(0x83, b"") + text("behind"))
    assert wire.close_frame()[0] == 1002
    assert ended(handler) == 1002
    assert handler.of("text") == [("text", b"before")]


# Pings


@pytest.mark.parametrize("payload", [b"", b"x", b"\0\xff\x80", b"p" * 125])
def test_ping_is_answered_with_its_payload(wire: Wire, payload: bytes) -> None:
    wire.send(masked(PING, payload))
    assert wire.frame() == (PONG, payload, False)


def test_pong_is_not_answered(plain: tuple[Wire, Recorder]) -> None:
    wire, _ = plain
    wire.send(masked(PONG, b"unasked") + masked(PING, b"asked"))
    assert wire.frame() == (PONG, b"asked", False)


def test_pings_in_one_packet_are_answered_one_by_one(wire: Wire) -> None:
    wire.send(b"".join(masked(PING, b"%d" % n) for n in range(20)))
    assert [wire.frame() for _ in range(20)] == [(PONG, b"%d" % n, False) for n in range(20)]


def test_ping_is_answered_before_the_message_behind_it(wire: Wire) -> None:
    wire.send(masked(FIRST_TEXT, b"a") + masked(PING, b"now") + masked(CONTINUATION, b"b"))
    assert wire.frame() == (PONG, b"now", False)
    assert wire.text() == b"ab"


def test_flood_of_pings_from_a_client_that_never_reads_grows_nothing(wires: Wires) -> None:
    with wires.websocket("/plain", receive_buffer=4096) as wire:
        socket = wires.handlers[-1].websocket
        assert socket is not None
        wires.call(socket.send_texts, [b"x" * 3_000_000])
        until(lambda: socket.paused)
        held = wires.call(socket.progress)
        for _ in range(20):
            wire.send(b"".join(masked(PING, b"p" * 120) for _ in range(200)))
        until(lambda: len(wires.handlers[-1].of("heard")) == 4000)
        assert wires.call(socket.progress) <= held
        assert len(wire.text()) == 3_000_000
        assert wire.frame() == (PONG, b"p" * 120, False)


# Closing


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4409, 4999]
)
def test_close_is_answered_with_the_same_code(plain: tuple[Wire, Recorder], code: int) -> None:
    wire, handler = plain
    wire.send(close(code, "goodbye ☃".encode()))
    assert wire.close_frame() == (code, "")
    assert wire.at_end()
    assert ended(handler) == code


def test_close_without_a_code_is_answered_without_one(plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    wire.send(close())
    assert wire.close_frame() == (None, "")
    assert wire.at_end()
    assert ended(handler) == 1005


@pytest.mark.parametrize("code", [0, 1, 500, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 9999, 65535])
def test_codes_that_must_not_be_sent_are_refused(plain: tuple[Wire, Recorder], code: int) -> None:
    wire, handler = plain
    wire.send(close(code))
    refused_with(wire, 1002)
    assert ended(handler) == 1002


def test_close_of_one_byte_is_refused(wire: Wire) -> None:
    wire.send(masked(CLOSE, b"\x03"))
    refused_with(wire, 1002)


@pytest.mark.parametrize("reason", [b"\xff", b"ok\xc3", b"\xed\xa0\x80"])
def test_close_reason_that_is_not_utf8_is_refused(wire: Wire, reason: bytes) -> None:
    wire.send(close(1000, reason))
    refused_with(wire, 1007)


def test_longest_close_reason_is_taken(wire: Wire) -> None:
    wire.send(close(1000, b"r" * 123))
    assert wire.close_frame() == (1000, "")


def test_nothing_behind_a_close_is_delivered(plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    wire.send(close(1000) + text("behind") + masked(PING, b"behind"))
    assert wire.close_frame() == (1000, "")
    assert wire.at_end()
    assert ended(handler) == 1000
    assert handler.of("text") == []


def test_server_closes_with_code_and_reason_and_waits_for_the_answer(
    wires: Wires, plain: tuple[Wire, Recorder]
) -> None:
    wire, handler = plain
    assert handler.websocket is not None
    wires.call(handler.websocket.close, 4409, "collision")
    assert wire.close_frame() == (4409, "collision")
    assert handler.of("closed") == []
    wire.send(close(4409))
    assert wire.at_end()
    assert ended(handler) == 4409


def test_what_arrives_between_close_and_its_answer_is_dropped(wires: Wires, plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    assert handler.websocket is not None
    wire.send(masked(FIRST_TEXT, b"begun"))
    until(lambda: handler.of("heard"))
    wires.call(handler.websocket.close, 1001, "going-away")
    assert wire.close_frame() == (1001, "going-away")
    wire.send(masked(CONTINUATION, b"late") + text("late") + masked(PING, b"late") + close(1001))
    assert wire.at_end()
    assert ended(handler) == 1001
    assert handler.of("text") == []


def test_close_that_is_not_answered_ends_after_its_time(wires: Wires, plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    assert handler.websocket is not None
    began = time.monotonic()
    wires.call(handler.websocket.close, 1001, "going-away")
    assert wire.close_frame() == (1001, "going-away")
    assert wire.at_end()
    assert time.monotonic() - began >= 0.3
    assert ended(handler) is None


def test_nothing_is_sent_behind_a_close(wires: Wires, plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    socket = handler.websocket
    assert socket is not None

    def close_and_go_on() -> None:
        socket.close(4403, "forbidden")
        socket.send_texts([b"late"])
        socket.keep_alive(True)
        socket.close(1011, "again")

    wires.call(close_and_go_on)
    assert wire.close_frame() == (4403, "forbidden")
    wire.send(close(4403))
    assert wire.at_end()


def test_too_long_a_reason_is_cut_between_characters(wires: Wires, plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    assert handler.websocket is not None
    wires.call(handler.websocket.close, 1011, "☃" * 60)
    assert wire.close_frame() == (1011, "☃" * 41)


def test_both_sides_may_close_at_the_same_time(wires: Wires, plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    assert handler.websocket is not None
    wire.send(close(1000))
    wires.call(handler.websocket.close, 1001, "going-away")
    assert wire.close_frame()[0] in (1000, 1001)
    assert wire.at_end()
    assert ended(handler) == 1000


def test_client_that_hangs_up_without_a_close_is_reported(plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    wire.close()
    assert ended(handler) is None


def test_client_that_is_cut_off_is_reported(plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    wire.send(text("half")[:4])
    wire.cut()
    assert ended(handler) is None


def test_client_cut_off_in_a_write_is_reported_and_harms_nobody(wires: Wires, wire: Wire) -> None:
    doomed = wires.websocket("/plain", receive_buffer=4096)
    handler = wires.handlers[-1]
    assert handler.websocket is not None
    wires.call(handler.websocket.send_texts, [b"x" * 2_000_000])
    doomed.cut()
    assert ended(handler) is None
    wire.send(text("still here"))
    assert wire.text() == b"still here"


def test_abort_cuts_at_once_and_every_later_call_is_harmless(wires: Wires, plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    socket = handler.websocket
    assert socket is not None
    wires.call(socket.abort)
    assert wire.at_end()
    assert ended(handler) is None

    def use_it() -> int:
        socket.send_texts([b"late"])
        socket.keep_alive(True)
        socket.close(1000, "late")
        socket.abort()
        return socket.progress()

    assert wires.call(use_it) == 0


def test_closed_socket_lets_go_of_its_handler_and_buffers(wires: Wires, plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    wire.send(masked(FIRST_TEXT, b"half") + text("half")[:4])
    wire.close()
    ended(handler)
    socket = handler.websocket
    assert socket is not None
    assert (socket._handler, socket._rest, socket._fragments) == (None, None, None)
    until(lambda: socket._deadline is None or socket._deadline._callback is None)


def test_idle_socket_holds_no_buffer(plain: tuple[Wire, Recorder]) -> None:
    wire, handler = plain
    frames = masked(FIRST_TEXT, b"a" * 500) + masked(CONTINUATION, b"b" * 500)
    wire.drip(frames[:100], frames[100:700], frames[700:])
    until(lambda: handler.of("text"))
    socket = handler.websocket
    assert socket is not None
    assert (socket._rest, socket._fragments, socket._pong) == (None, None, None)
    assert not hasattr(socket, "__dict__")


# A client that does not read


def test_writer_is_told_to_stop_and_to_go_on(wires: Wires) -> None:
    with wires.websocket("/plain", receive_buffer=4096) as wire:
        handler = wires.handlers[-1]
        socket = handler.websocket
        assert socket is not None

        def fill() -> int:
            sent = 0
            while not socket.paused:
                socket.send_texts([b"x" * 1000] * 8)
                sent += 8
            return sent

        assert not socket.paused
        sent = wires.call(fill)
        held = wires.call(socket.progress)
        assert WRITE_BUFFER_BYTES < held < WRITE_BUFFER_BYTES + 20_000
        assert handler.of("resumed") == []
        assert all(wire.text() == b"x" * 1000 for _ in range(sent))
        until(lambda: handler.of("resumed"))
        assert not socket.paused
        assert wires.call(socket.progress) == 0


def test_close_of_a_client_that_never_reads_ends_after_its_time(wires: Wires) -> None:
    with wires.websocket("/plain", receive_buffer=4096):
        handler = wires.handlers[-1]
        assert handler.websocket is not None
        wires.call(handler.websocket.send_texts, [b"x" * 3_000_000])
        wires.call(handler.websocket.close, 1013, "slow-consumer")
        assert ended(handler) is None


def test_client_that_closes_but_never_reads_is_cut_off(wires: Wires) -> None:
    with wires.websocket("/plain", receive_buffer=4096) as wire:
        handler = wires.handlers[-1]
        socket = handler.websocket
        assert socket is not None
        wires.call(socket.send_texts, [b"x" * 3_000_000])
        wire.send(close(1000))
        assert ended(handler) == 1000
        until(lambda: socket.progress() == 0)


# A transport that cannot close one direction only, as under TLS


class Tunnel(asyncio.Transport):
    """Notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.done: list[str] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.done.append(f"high={high}")

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")


async def test_broken_peer_under_tls_is_told_why_and_closed() -> None:
    wheel = Wheel(asyncio.get_running_loop())
    tunnel, handler = Tunnel(), Recorder()
    socket = WebSocket(tunnel, Accept(handler, 100), wheel, close_timeout_s=0.1)
    socket.open(b"101", b"", paused=True)
    assert socket.paused
    assert tunnel.protocol is socket
    socket.data_received(masked(0x83))
    assert tunnel.written == b"101" + b"\x88\x11\x03\xeareserved opcode"
    assert tunnel.done == [f"high={WRITE_BUFFER_BYTES}", "close"]
    assert handler.events == [("opened",), ("closed", 1002)]
    socket.data_received(text("late"))
    async with asyncio.timeout(5):
        while "abort" not in tunnel.done:  # a peer that does not take the close frame is cut off
            await asyncio.sleep(0.01)
    socket.connection_lost(None)
    assert handler.events == [("opened",), ("closed", 1002)]
    assert len(wheel) == 0
