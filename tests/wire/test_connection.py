"""What is acceptable as HTTP (D-52), and what becomes of everything else, over raw bytes."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from structlog.testing import capture_logs

from landline.wire.connection import PIPELINED, STOP_GRACE_S
from landline.wire.listener import SEND_BUFFER_BYTES, listening_sockets, raise_file_limit
from support.wires import KEY, Response, Wire, Wires, handshake, text, until

LOOPS = ["asyncio", "uvloop"] if find_spec("uvloop") else ["asyncio"]

DIRECT_LINE = "/v3/directline/conversations"


@pytest.fixture(scope="module", params=LOOPS)
def wires(request: pytest.FixtureRequest) -> Iterator[Wires]:
    with Wires(request.param) as wires:
        yield wires


@pytest.fixture(scope="module", params=LOOPS)
def hasty(request: pytest.FixtureRequest) -> Iterator[Wires]:
    """A server that waits for nobody."""
    with Wires(request.param, header_timeout_s=0.3, body_stall_s=0.4, keep_alive_s=1) as wires:
        yield wires


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def request(path: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    """A request with these header lines beside Host."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode("latin-1") + body


def refused(wire: Wire, status: int) -> Response:
    """The answer is an error object with this status, and the connection ends."""
    answer = wire.response()
    assert (answer.status, answer.error["code"]) == (status, "BadArgument")
    assert answer.headers["connection"] == "close"
    assert wire.at_end()
    return answer


# What is served


def test_request_reaches_the_application(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(request("/a%20b?c=%20d", "X-One: 1", "Content-Length: 5", method="POST", body=b"hello"))
        answer = wire.response()
    asked = json.loads(answer.body)
    assert (answer.status, asked["method"], asked["path"], asked["query"]) == (200, "POST", "/a b", "c=%20d")
    assert asked["body"] == "hello"
    assert ["x-one", "1"] in asked["headers"]
    assert answer.headers["date"]
    assert "server" not in answer.headers


def test_request_may_come_one_byte_at_a_time(wires: Wires) -> None:
    whole = request("/path", "Content-Length: 3", method="POST", body=b"abc")
    with wires.connect() as wire:
        wire.drip(*(whole[i : i + 1] for i in range(len(whole))))
        assert json.loads(wire.response().body)["body"] == "abc"


def test_connection_serves_one_request_after_the_other(wires: Wires) -> None:
    with wires.connect() as wire:
        for number in range(5):
            wire.send(request(f"/{number}"))
            assert json.loads(wire.response().body)["path"] == f"/{number}"


def test_pipelined_requests_are_answered_in_order(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(b"".join(request(f"/{number}") for number in range(PIPELINED)))
        assert [json.loads(wire.response().body)["path"] for _ in range(PIPELINED)] == [
            f"/{number}" for number in range(PIPELINED)
        ]


def test_chunked_body_arrives_whole(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(request("/", "Transfer-Encoding: chunked", method="POST"))
        wire.drip(b"3\r\nabc\r\n", b"2;ext=1\r\nde\r\n", b"0\r\n\r\n")
        assert json.loads(wire.response().body)["body"] == "abcde"


def test_large_body_arrives_whole(wires: Wires) -> None:
    body = b"x" * 1_000_000
    with wires.connect() as wire:
        wire.send(request("/", f"Content-Length: {len(body)}", method="POST", body=body))
        assert len(json.loads(wire.response().body)["body"]) == len(body)


def test_trailer_cannot_pose_as_a_header(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(request("/", "Transfer-Encoding: chunked", method="POST"))
        wire.send(b"1\r\nx\r\n0\r\nAuthorization: Bearer stolen\r\n\r\n")
        asked = json.loads(wire.response().body)
    assert asked["body"] == "x"
    assert "authorization" not in dict(asked["headers"])
    assert "authorization" not in dict(wires.scopes[-1]["headers"])


def test_expectation_is_met_when_the_body_is_wanted(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(request("/", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        assert wire.response().status == 100
        wire.send(b"abc")
        assert json.loads(wire.response().body)["body"] == "abc"


@pytest.mark.parametrize("path", ["/", "/hold"])
def test_offer_of_another_protocol_is_ignored_and_the_body_is_not_lost(wires: Wires, path: str) -> None:
    wires.call(wires.release.set)
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    with wires.connect() as wire:
        wire.send(request(path, *offer, "Content-Length: 5", method="POST", body=b"he"))
        wire.send(b"llo")
        assert json.loads(wire.response().body)["body"] == "hello"
        wire.send(request("/next", *offer))
        assert json.loads(wire.response().body)["path"] == "/next"


def test_offer_of_a_websocket_where_there_is_none_is_ignored_and_the_body_is_not_lost(wires: Wires) -> None:
    whole = handshake("/page", "Content-Length: 5", method="POST") + b"hello"
    for pieces in ((whole,), (whole[:-7], whole[-7:]), (whole[:-3], whole[-3:])):
        with wires.connect() as wire:
            wire.drip(*pieces)
            asked = json.loads(wire.response().body)
            assert (asked["method"], asked["path"], asked["body"]) == ("POST", "/page", "hello")
            wire.send(request("/next"))
            assert json.loads(wire.response().body)["path"] == "/next"


def test_upgrade_that_is_not_in_connection_is_an_ordinary_request(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake("/echo").replace(b"Connection: keep-alive, Upgrade", b"Connection: keep-alive"))
        assert json.loads(wire.response().body)["path"] == "/echo"


def test_time_of_a_request_counts_from_its_first_byte(wires: Wires) -> None:
    """8.6. Where it comes at once, or is not kept waiting, that is when the application hears of it."""

    def begun() -> float | None:
        at: float | None = wires.scopes[-1]["extensions"]["landline"].begun
        return at

    def is_noted() -> bool:
        return any(each._begun_at for each in wires.listener._server.server_state.connections)  # type: ignore[union-attr]

    with wires.connect() as wire:
        wire.send(request("/") + b"G")
        assert wire.response().status == 200
        assert begun() is None
        until(is_noted)
        before = time.monotonic()
        wire.send(request("/slow")[1:])
        assert json.loads(wire.response().body)["path"] == "/slow"
        at = begun()
        assert at is not None
        assert before - 5 < at <= before
        wire.send(request("/"))
        assert wire.response().status == 200
        assert begun() is None
        wires.call(wires.release.clear)
        wire.send(request("/hold") + request("/behind"))
        before = time.monotonic()
        until(lambda: wires.scopes[-1]["path"] == "/hold")
        wires.call(wires.release.set)
        assert [wire.response().status for _ in range(2)] == [200, 200]
        at = begun()
        assert at is not None
        assert at < time.monotonic()


# Odd requests


ODD_METHODS = ["FOO", "get", "GEX", "PLAY", "x-y!z", "eyJ.eyJ_-~"]


@pytest.mark.parametrize("method", ODD_METHODS)
def test_method_that_nobody_knows_is_the_applications_business(wires: Wires, method: str) -> None:
    whole = request("/a?b", "X-One: 1", "Content-Length: 5", method=method, body=b"hello")
    behind = len(f"{method} /a?b HTTP/1.1\r\n")
    for pieces in ((whole,), (whole[:behind], whole[behind:]), (whole[:-3], whole[-3:]), (b"\r\n" + whole,)):
        with wires.connect() as wire:
            wire.send(request("/before"))
            assert wire.response().status == 200
            wire.drip(*pieces)
            answer = wire.response()
            assert answer.headers["connection"] == "close"
            assert wire.at_end()
        asked = json.loads(answer.body)
        assert (asked["path"], asked["query"], asked["body"]) == ("/a", "b", "hello")
        assert asked["method"] == "UNKNOWN", "what it was may be a credential, and would be logged"
        assert asked["headers"] == [["host", "here"], ["x-one", "1"], ["content-length", "5"]]


@pytest.mark.parametrize("method", ODD_METHODS)
def test_rules_hold_whatever_the_method_is(wires: Wires, method: str) -> None:
    with wires.connect() as wire:
        wire.send(request(DIRECT_LINE, "Origin: http://page", "Host: there", method=method))
        answer = refused(wire, 400)
        assert answer.error["message"] == "Header is given twice: host"
        assert answer.headers["access-control-allow-origin"] == "http://page"
    with wires.connect() as wire:
        wire.send(request("/a", *(f"X-{n}: {n}" for n in range(101)), method=method))
        refused(wire, 431)
    with wires.connect() as wire:
        wire.send(request("/a", "Connection: Upgrade", "Upgrade: h2c", method=method))
        assert json.loads(wire.response().body)["method"] == "UNKNOWN"
    with wires.connect() as wire:
        wire.send(handshake().replace(b"GET", method.encode()))
        assert json.loads(wire.response().body)["method"] == "UNKNOWN"


def test_method_that_nobody_knows_behind_another_request_has_an_error_object(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(request("/first") + request("/second", method="FOO"))
        assert json.loads(wire.response().body)["path"] == "/first"
        refused(wire, 400)


def test_body_cannot_pose_as_a_request_with_an_odd_method(wires: Wires) -> None:
    inside = request("/inside", method="FOO")
    with wires.connect() as wire:
        wire.send(request("/unread", f"Content-Length: {len(inside)}", method="POST"))
        assert wire.response().status == 413
        wire.send(inside + b"\0")
        refused(wire, 400)
    assert wires.scopes[-1]["path"] == "/unread"


@pytest.mark.item(197)
@pytest.mark.parametrize(
    "headers",
    [
        ("Authorization: Bearer a", "Authorization: Bearer b"),
        ("Authorization: Bearer b", "Authorization: Bearer a"),
        ("Host: there",),
        ("Host: here",),
        ("Content-Length: 3", "Content-Length: 4"),
        ("Content-Length: 3", "Content-Length: 3"),
        ("Content-Length: 3", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 3"),
        ("Content-Length: -1",),
        ("Content-Length: 1x",),
        ("X-Folded: a\r\n b",),
        ("X-Folded: a\r\n\tb",),
        (" Leading: space",),
        ("Spaced : name",),
        ("No colon",),
        ("X-Nul: a\0b",),
    ],
)
def test_ambiguous_or_malformed_headers_are_refused(wires: Wires, headers: tuple[str, ...]) -> None:
    with wires.connect() as wire:
        wire.send(request(DIRECT_LINE, *headers, method="POST", body=b"abc"))
        refused(wire, 400)


@pytest.mark.item(197)
def test_equal_lines_that_libraries_write_twice_are_one(wires: Wires) -> None:
    twice = ("Authorization: Bearer a", "Content-Type: application/json") * 2
    with wires.connect() as wire:
        wire.send(
            request(DIRECT_LINE, *twice, "AUTHORIZATION:  Bearer a ", "Content-Length: 2", method="POST", body=b"{}")
        )
        assert wire.response().status == 200


@pytest.mark.item(211)
@pytest.mark.parametrize(
    "codings", [("gzip",), ("gzip, chunked",), ("chunked, gzip",), ("chunked", "chunked"), ("gzip", "chunked")]
)
def test_transfer_coding_that_is_not_chunked_alone_is_501(wires: Wires, codings: tuple[str, ...]) -> None:
    lines = [f"Transfer-Encoding: {coding}" for coding in codings]
    with wires.connect() as wire:
        wire.send(request(DIRECT_LINE, *lines, method="POST", body=b"0\r\n\r\n"))
        refused(wire, 501)


@pytest.mark.item(211)
@pytest.mark.parametrize("head", [b"GET /x HTTP/1.1", b"GET /x HTTP/1.1\r\nHost:", b"GET /x HTTP/1.0\r\nHost: a b"])
def test_request_without_a_possible_host_is_refused(wires: Wires, head: bytes) -> None:
    with wires.connect() as wire:
        wire.send(head + b"\r\n\r\n")
        refused(wire, 400)
    with wires.connect() as wire:
        wire.send(b"GET /x HTTP/1.0\r\n\r\n")
        assert wire.response().status == 200


def test_space_behind_a_value_is_not_part_of_it(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(request("/", "X-One: a b \t ", "Content-Length: 2 ", "Transfer-Size:", method="POST", body=b"ab"))
        asked = json.loads(wire.response().body)
    assert asked["headers"] == [["host", "here"], ["x-one", "a b"], ["content-length", "2"], ["transfer-size", ""]]
    with wires.connect() as wire:
        wire.send(handshake("/echo", key=KEY + b" ", version="13 "))
        assert wire.response().status == 101


def test_host_of_a_target_in_absolute_form_counts(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake("http://there:81/echo?t=1"))
        assert wire.response().status == 101
    asked = wires.upgrades[-1]
    assert (asked.path, asked.query, asked.header(b"host")) == ("/echo", b"t=1", b"there:81")


@pytest.mark.parametrize("target", ["/caf\xe9", "x", "here:80", "\\"])
def test_target_that_is_no_url_has_an_error_object(wires: Wires, target: str) -> None:
    with wires.connect() as wire:
        wire.send(request(target))
        assert refused(wire, 400).error["message"] == "URL is malformed"


@pytest.mark.parametrize("version", ["HTTP/9.9", "HTTP/1.2", "HTTX/1.1"])
def test_unknown_version_is_refused(wires: Wires, version: str) -> None:
    with wires.connect() as wire:
        wire.send(f"GET /path {version}\r\nHost: here\r\n\r\n".encode())
        refused(wire, 400)


def test_connect_is_refused(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(b"CONNECT there:443 HTTP/1.1\r\nHost: there:443\r\n\r\n")
        refused(wire, 400)


def test_malformed_chunk_ends_the_request_that_waits_for_it(wires: Wires) -> None:
    before = wires.disconnects
    with wires.connect() as wire:
        wire.send(request("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
        wire.send(b"zz\r\n")
        refused(wire, 400)
    until(lambda: wires.disconnects == before + 1)


@pytest.mark.item(21)
@pytest.mark.parametrize("pieces", [1, 7])
def test_application_is_told_of_a_url_over_8_kib_and_given_no_more_of_it(wires: Wires, pieces: int) -> None:
    """The route and the method come before its length (3.4)."""
    for length in (8192, 8193, 30_000):
        whole = request("/" + "u" * (length - 1))
        step = -(-len(whole) // pieces)
        with wires.connect() as wire:
            wire.drip(*(whole[i : i + step] for i in range(0, len(whole), step)))
            assert len(json.loads(wire.response().body)["path"]) == min(length, 8193)
            assert wires.scopes[-1]["extensions"]["landline"].url_is_cut == (length > 8192)
            wire.send(request("/next"))
            assert wire.response().status == 200
            assert not wires.scopes[-1]["extensions"]["landline"].url_is_cut


@pytest.mark.item(197)
def test_more_than_100_header_fields_are_refused(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(request("/", *(f"X-{n}: {n}" for n in range(99))))
        assert wire.response().status == 200
        wire.send(request("/", *(f"X-{n}: {n}" for n in range(100))))
        refused(wire, 431)


@pytest.mark.parametrize("size", [31_000, 33_000, 200_000])
def test_more_than_32_kib_of_headers_are_refused(wires: Wires, size: int) -> None:
    for fields in (["X: " + "x" * size], [f"X-{n}: " + "x" * (size // 50) for n in range(50)]):
        with wires.connect() as wire:
            wire.send(request("/", *fields))
            if size < 32_000:
                assert wire.response().status == 200
            else:
                refused(wire, 431)


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nX", b"GET /"])
def test_endless_line_is_refused_before_it_ends(wires: Wires, begin: bytes) -> None:
    with wires.connect() as wire:
        wire.drip(begin, *([b"x" * 10_000] * 6))
        refused(wire, 414 if begin == b"GET /" else 431)


@pytest.mark.parametrize("tail", [b"0\r\nX: ", b"1;"])
def test_endless_trailer_or_chunk_extension_is_refused(wires: Wires, tail: bytes) -> None:
    """What shares the packet of the head is not counted, so the head is sent, and taken, before the rest."""
    with wires.connect() as wire:
        wire.send(request("/", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST"))
        assert wire.take(len(CONTINUE)) == CONTINUE
        wire.drip(tail, *([b"x" * 10_000] * 6))
        refused(wire, 431)


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"hello there\r\n\r\n", b"SSH-2.0-x\r\n", bytes(100)]
)
def test_bytes_that_are_not_http_get_a_short_plain_answer(wires: Wires, noise: bytes) -> None:
    with wires.connect() as wire:
        wire.send(noise)
        answer = wire.response()
        assert answer.status == 400
        assert answer.headers["content-type"].startswith("text/plain")
        assert len(answer.body) < 100
        assert wire.at_end()


def test_refusal_is_readable_in_a_browser(wires: Wires) -> None:
    origin = "https://page.example"
    for position in (0, 99, 120):
        headers = [f"X-{n}: {n}" for n in range(120)]
        headers.insert(position, f"Origin: {origin}")
        with wires.connect() as wire:
            wire.send(request(DIRECT_LINE, *headers))
            answer = refused(wire, 431)
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_refusal_outside_the_direct_line_api_has_no_cors_header(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(request("/v3/conversations", "Origin: https://page.example", "Host: twice"))
        assert "access-control-allow-origin" not in refused(wire, 400).headers


def test_refusal_names_only_origins_that_are_allowed() -> None:
    with Wires(cors_origins=frozenset({"https://good.example"})) as wires:
        for origin, named in (("https://GOOD.example", True), ("https://bad.example", False)):
            with wires.connect() as wire:
                wire.send(request(DIRECT_LINE, f"Origin: {origin}", "Host: twice"))
                answer = refused(wire, 400)
            assert ("access-control-allow-origin" in answer.headers) is named
            assert answer.headers["vary"] == "Origin"


def test_client_that_goes_on_sending_still_reads_the_refusal(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(request("/", "Host: twice", "Content-Length: 5000000", method="POST"))
        wire.send(b"x" * 5_000_000)
        refused(wire, 400)


def test_bad_request_waits_for_the_answer_before_it(wires: Wires) -> None:
    wires.call(wires.release.clear)
    with wires.connect() as wire:
        wire.send(request("/hold") + request("/", "Host: twice") + request("/never"))
        wires.call(wires.release.set)
        assert json.loads(wire.response().body)["path"] == "/hold"
        refused(wire, 400)


def test_bad_body_of_a_waiting_request_does_not_touch_the_one_before_it(wires: Wires) -> None:
    wires.call(wires.release.clear)
    started = len(wires.scopes)
    with wires.connect() as wire:
        wire.send(request("/hold") + request("/never", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n")
        until(lambda: len(wires.scopes) == started + 1)
        wires.call(wires.release.set)
        assert json.loads(wire.response().body)["path"] == "/hold"
        refused(wire, 400)
    assert [scope["path"] for scope in wires.scopes[started:]] == ["/hold"]


def test_pipeline_is_bounded(wires: Wires) -> None:
    wires.call(wires.release.clear)
    with wires.connect() as wire:
        wire.send(request("/hold") * (PIPELINED + 5))
        wires.call(wires.release.set)
        for _ in range(PIPELINED + 1):
            assert wire.response().status == 200
        refused(wire, 400)


def test_handshake_cannot_be_pipelined(wires: Wires) -> None:
    wires.call(wires.release.clear)
    with wires.connect() as wire:
        wire.send(request("/hold") + handshake())
        wires.call(wires.release.set)
        assert wire.response().status == 200
        refused(wire, 400)


# Handshakes that are not decided by RFC 6455


def test_application_refuses_a_handshake_with_its_own_answer(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake("/forbidden"))
        answer = wire.response()
        assert (answer.status, answer.headers["x-why"], answer.body) == (403, "because", b"no")
        assert answer.headers["connection"] == "close"
        assert wire.at_end()


def test_failing_decision_is_a_500(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake("/broken"))
        answer = wire.response()
        assert (answer.status, answer.error["code"]) == (500, "ServiceError")
        assert wire.at_end()


def test_decision_is_given_path_query_headers_and_peer(wires: Wires) -> None:
    with wires.connect() as wire:
        wire.send(handshake("/a%2Fb%20c?t=%2B1&watermark=", "Origin: https://page.example"))
        assert wire.response().status == 101
        peer = wire.plug.getsockname()
    asked = wires.upgrades[-1]
    assert (asked.path, asked.query, asked.scheme, asked.problem) == ("/a%2Fb c", b"t=%2B1&watermark=", "http", None)
    assert asked.header(b"origin") == b"https://page.example"
    assert asked.header(b"absent") is None
    assert asked.client == peer
    assert asked.server == ("127.0.0.1", wires.port)


@pytest.mark.parametrize("target", ["/caf\xe9", "*", "//", "http://here", "http://here?t=1", "/#/?"])
def test_odd_url_in_a_handshake_breaks_nothing(wires: Wires, target: str) -> None:
    with wires.connect() as wire:
        wire.send(handshake(target))
        assert wire.response().status in (101, 400)


# Slow requests


@pytest.mark.item(196)
def test_client_that_sends_one_header_byte_at_a_time_is_gone_after_the_stated_time(hasty: Wires) -> None:
    with hasty.connect() as wire:
        began = time.monotonic()
        wire.plug.settimeout(0.05)
        slow = iter(request("/" + "s" * 5000))
        received = b""
        while not received:
            try:
                wire.send(bytes([next(slow)]))
                received = wire.plug.recv(1 << 16)
            except TimeoutError:
                assert time.monotonic() - began < 10
        assert time.monotonic() - began >= 0.3
        wire.plug.settimeout(10)
        wire._held = received
        refused(wire, 408)


@pytest.mark.item(196)
def test_client_that_stops_in_mid_body_is_gone_after_the_stated_time(hasty: Wires) -> None:
    before = hasty.disconnects
    with hasty.connect() as wire:
        began = time.monotonic()
        wire.send(request("/", "Content-Length: 10", method="POST", body=b"half"))
        refused(wire, 408)
        assert time.monotonic() - began >= 0.4
    until(lambda: hasty.disconnects == before + 1)


def test_body_that_never_stays_silent_for_long_is_waited_for(hasty: Wires) -> None:
    with hasty.connect() as wire:
        wire.send(request("/", "Content-Length: 12", method="POST"))
        for _ in range(12):
            time.sleep(0.1)  # three times the limit in all, a quarter of it at a time
            wire.send(b"x")
        assert json.loads(wire.response().body)["body"] == "x" * 12


def test_client_that_says_nothing_is_closed(hasty: Wires) -> None:
    with hasty.connect() as wire:
        began = time.monotonic()
        assert wire.at_end()
        assert time.monotonic() - began >= 0.29


def test_empty_lines_do_not_keep_a_connection_open(hasty: Wires) -> None:
    with hasty.connect() as wire:
        wire.send(request("/") + b"\r\n")
        assert wire.response().status == 200
        wire.send(b"\r\n")
        assert wire.at_end()


def test_kept_connection_is_closed_after_its_own_time(hasty: Wires) -> None:
    with hasty.connect() as wire:
        wire.send(request("/"))
        wire.response()
        began = time.monotonic()
        assert wire.at_end()
        assert time.monotonic() - began >= 0.9


def test_time_of_the_second_head_begins_with_its_first_byte(hasty: Wires) -> None:
    with hasty.connect() as wire:
        wire.send(request("/"))
        wire.response()
        time.sleep(0.5)  # longer than a head may take
        wire.send(request("/next"))
        assert wire.response().status == 200
        wire.send(b"GET")
        refused(wire, 408)


def test_answer_before_the_body_can_be_read_and_the_rest_is_dropped(wires: Wires) -> None:
    body = b"x" * 3_000_000
    with wires.connect() as wire:
        wire.send(request("/unread", f"Content-Length: {len(body)}", method="POST", body=body))
        assert wire.response().status == 413
        wire.send(request("/next"))
        assert json.loads(wire.response().body)["path"] == "/next"


def test_rest_of_an_answered_body_is_not_awaited_for_ever(hasty: Wires) -> None:
    with hasty.connect() as wire:
        wire.send(request("/unread", "Content-Length: 1000", method="POST"))
        assert wire.response().status == 413
        wire.plug.settimeout(0.1)
        received, began = None, time.monotonic()
        while received is None:
            assert time.monotonic() - began < 10
            wire.send(b"x")  # never silent, never done
            try:
                received = wire.plug.recv(100)
            except TimeoutError:
                continue
        assert received == b""


def test_response_that_is_not_taken_is_given_up(hasty: Wires) -> None:
    with hasty.connect(receive_buffer=4096) as wire:
        wire.send(request("/big"))
        until(lambda: hasty.scopes and hasty.scopes[-1]["path"] == "/big")
        until(lambda: hasty.connections() == 0)


def test_response_that_is_taken_slowly_is_not_given_up() -> None:
    with Wires(body_stall_s=0.3) as wires, wires.connect(receive_buffer=65536) as wire:
        wire.send(request("/big"))
        wire.plug.settimeout(5)
        total = 0
        began = time.monotonic()
        while total < 1 << 22:
            total += len(wire.plug.recv(1 << 17))
            time.sleep(0.02)
        assert time.monotonic() - began > 0.6


def test_long_work_of_ours_is_no_fault_of_the_client(hasty: Wires) -> None:
    hasty.call(hasty.release.clear)
    with hasty.connect() as wire:
        wire.send(request("/hold"))
        time.sleep(0.8)  # twice every limit
        hasty.call(hasty.release.set)
        assert wire.response().status == 200


@pytest.mark.item(196)
def test_200_slow_clients_cost_a_socket_each_and_disturb_nobody(hasty: Wires) -> None:
    slow = [hasty.connect() for _ in range(200)]
    for number, wire in enumerate(slow):
        wire.send(b"GET /" if number % 2 else request("/", "Content-Length: 5", method="POST"))
    with hasty.connect() as wire:
        for _ in range(20):
            wire.send(request("/"))
            assert wire.response().status == 200
    for wire in slow:
        assert wire.response().status == 408
        wire.close()
    until(lambda: hasty.connections() == 0)
    until(lambda: hasty.call(len, hasty.wheel) == 0)


def test_open_websocket_is_not_subject_to_the_times_of_requests(hasty: Wires) -> None:
    with hasty.websocket() as wire:
        time.sleep(1.2)  # longer than a head, a body or a kept connection may rest
        wire.send(text("still"))
        assert wire.text() == b"still"


# Listening and stopping


@pytest.mark.skipif(sys.platform != "linux", reason="the options of Linux")
def test_accepted_sockets_inherit_the_options() -> None:
    (listener,) = listening_sockets("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
            # Linux answers twice what was asked for; a low net.core.wmem_max may cap it.
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER_BYTES


def test_port_that_is_taken_is_an_error() -> None:
    (first,) = listening_sockets("127.0.0.1", 0)
    with first, pytest.raises(OSError, match=r"[Aa]ddress"):
        listening_sockets("127.0.0.1", first.getsockname()[1])


def test_soft_file_limit_becomes_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        assert raise_file_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", LOOPS)
def test_stop_finishes_what_is_under_way(kind: str) -> None:
    with Wires(kind) as wires, wires.connect() as busy, wires.connect() as idle:
        wires.call(wires.release.clear)
        busy.send(request("/hold"))
        idle.send(request("/"))
        assert idle.response().status == 200
        until(lambda: len(wires.scopes) == 2)
        wires.call(wires.listener.stop_listening)
        with pytest.raises(OSError, match="refused"):
            wires.connect()
        stopping = asyncio.run_coroutine_threadsafe(wires.listener.stop(10), wires.loop)
        idle.send(request("/again"))
        assert idle.response().status == 200  # open connections are served while somebody is
        assert not stopping.done()
        wires.call(wires.release.set)
        assert busy.response().status == 200
        assert idle.at_end()
        stopping.result(10)


def leave(wires: Wires, busy_s: float = 0) -> None:
    """Tell every connection that it is to end, after so long a time in which the loop sees nothing of what comes."""

    def tell() -> None:
        time.sleep(busy_s)
        for connection in list(wires.listener._server.server_state.connections):
            connection.shutdown()

    wires.loop.call_soon_threadsafe(tell)


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("first", [b"", b"GET /", request("/")[:-2]])
def test_stop_waits_a_moment_for_a_request_that_is_on_its_way(kind: str, first: bytes) -> None:
    """Its client could not know: it was let in before."""
    with Wires(kind) as wires, wires.connect() as wire:
        until(lambda: wires.connections() == 1)
        wire.send(first)
        stopping = asyncio.run_coroutine_threadsafe(wires.listener.stop(10), wires.loop)
        time.sleep(0.2)
        wire.send(request("/")[len(first) :])
        answer = wire.response()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert wire.at_end()
        stopping.result(10)


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("cut", [len(request("/")), 8])
def test_stop_serves_what_is_in_the_socket_of_an_idle_connection(kind: str, cut: int) -> None:
    with Wires(kind) as wires, wires.connect() as wire:
        wire.send(request("/"))
        assert wire.response().status == 200
        leave(wires, busy_s=0.3)
        wire.send(request("/")[:cut])
        time.sleep(0.4)
        wire.send(request("/")[cut:])
        answer = wire.response()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert wire.at_end()


@pytest.mark.parametrize("kind", LOOPS)
def test_stop_waits_for_a_handshake_that_is_being_decided(kind: str) -> None:
    with Wires(kind) as wires, wires.connect() as wire:
        wire.send(handshake("/later"))
        until(lambda: wires.upgrades)
        leave(wires)
        time.sleep(STOP_GRACE_S + 0.2)
        wires.call(wires.decide.set)
        assert wire.response().status == 101


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("beginning", [b"", b"GET / HT"])
def test_connection_that_says_nothing_more_does_not_hold_up_a_stop(kind: str, beginning: bytes) -> None:
    with Wires(kind) as wires, wires.connect() as wire:
        wire.send(beginning)
        until(lambda: wires.connections() == 1)
        began = time.monotonic()
        asyncio.run_coroutine_threadsafe(wires.listener.stop(10), wires.loop).result(10)
        assert time.monotonic() - began < 4
        assert wire.at_end()


@pytest.mark.parametrize("kind", LOOPS)
def test_stop_does_not_wait_longer_than_it_is_told(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with Wires(kind) as wires, wires.connect() as wire:
        wire.send(request("/hold"))
        until(lambda: len(wires.scopes) == 1)
        began = time.monotonic()
        with capture_logs() as logs:
            asyncio.run_coroutine_threadsafe(wires.listener.stop(0.3), wires.loop).result(10)
        assert time.monotonic() - began >= 0.3
        assert wires.connections() == 0
        assert [(line["event"], line["log_level"]) for line in logs] == [("the stop cut connections off", "info")]
        assert caplog.records == []


@pytest.mark.parametrize("kind", LOOPS)
def test_stop_leaves_websockets_to_the_application(kind: str) -> None:
    with Wires(kind) as wires, wires.websocket() as wire:
        wires.call(wires.listener.stop_listening)
        wire.send(text("still"))
        assert wire.text() == b"still"
        handler = wires.handlers[-1]
        assert handler.websocket is not None
        wires.call(handler.websocket.abort)
        asyncio.run_coroutine_threadsafe(wires.listener.stop(5), wires.loop).result(10)
        assert wire.at_end()
