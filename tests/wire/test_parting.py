"""An answer that is given before the body was read arrives, however much is still coming (statement 210)."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import socket
import ssl
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from landline.server.certificates import Files, make_certificate
from landline.wire.listener import tls_context
from landline.wire.parting import Patience
from support.wires import Response, Wire, Wires, until

LOOPS = ["asyncio", "uvloop"] if find_spec("uvloop") else ["asyncio"]
MIB = 1 << 20


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificate(tmp_path_factory.mktemp("tls"), ["127.0.0.1"], dt.datetime.now(dt.UTC))


@pytest.fixture(scope="module", params=LOOPS)
def wires(request: pytest.FixtureRequest) -> Iterator[Wires]:
    with Wires(request.param) as wires:
        yield wires


@pytest.fixture(scope="module", params=LOOPS)
def secure(request: pytest.FixtureRequest, certificate: Files) -> Iterator[Wires]:
    with Wires(request.param, tls=tls_context(certificate.certificate, certificate.key)) as wires:
        yield wires


@contextlib.contextmanager
def connected(wires: Wires, authority: Path | None = None) -> Iterator[Wire]:
    """A connection, over TLS where there is an authority to trust."""
    with wires.connect() as wire:
        if authority is not None:
            context = ssl.create_default_context(cafile=str(authority))
            wire = Wire(context.wrap_socket(wire.plug, server_hostname="127.0.0.1"))
        with wire:
            yield wire


def head(path: str, length: int, *lines: str, version: str = "1.1") -> bytes:
    said = [f"POST {path} HTTP/{version}", "Host: here", f"Content-Length: {length}", *lines, "", ""]
    return "\r\n".join(said).encode()


REFUSED = {
    "by the endpoint, HTTP/1.0": ("/unread", "1.0", (), 413),
    "by the endpoint, Connection: close": ("/unread", "1.1", ("Connection: close",), 413),
    "as HTTP": ("/", "1.1", ("Host: twice",), 400),
}


def all_sent_then_read(wire: Wire, data: bytes, size: int) -> Response:
    """What a client gets that does not look before it has sent everything, as most do."""
    wire.send(data)
    for _ in range(size // MIB):
        wire.send(bytes(MIB))
    answer = wire.response()
    assert wire.at_end()
    return answer


@pytest.mark.item(210)
@pytest.mark.parametrize("size", [2 * MIB, 22 * MIB])
@pytest.mark.parametrize("why", REFUSED)
def test_refusal_reaches_a_client_that_sends_everything_first(wires: Wires, why: str, size: int) -> None:
    path, version, lines, status = REFUSED[why]
    with connected(wires) as wire:
        assert all_sent_then_read(wire, head(path, size, *lines, version=version), size).status == status
    until(lambda: wires.connections() == 0)


@pytest.mark.item(210)
@pytest.mark.parametrize("size", [2 * MIB, 22 * MIB])
@pytest.mark.parametrize("why", REFUSED)
def test_refusal_reaches_it_over_tls(secure: Wires, certificate: Files, why: str, size: int) -> None:
    path, version, lines, status = REFUSED[why]
    with connected(secure, certificate.ca) as wire:
        assert all_sent_then_read(wire, head(path, size, *lines, version=version), size).status == status


@pytest.mark.item(210)
def test_connection_is_closed_in_our_direction_at_once(wires: Wires) -> None:
    """Some clients read to the end before they look; a proxy gives the connection up then."""
    with connected(wires) as wire:
        wire.send(head("/unread", MIB, version="1.0") + b"x")
        began = time.monotonic()
        assert wire.response().status == 413
        assert wire.at_end()
        assert time.monotonic() - began < Patience().silence_s


@pytest.mark.item(210)
def test_client_that_waits_for_a_word_before_its_body_gets_the_refusal_instead(wires: Wires) -> None:
    """And the connection ends: whether the body comes after all, nobody can know (RFC 9110, section 10.1.1)."""
    with connected(wires) as wire:
        wire.send(head("/unread", 22 * MIB, "Expect: 100-continue"))
        answer = wire.response()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert wire.at_end()
    with connected(wires) as wire:
        wire.send(head("/", 2, "Expect: 100-continue"))
        assert wire.response().status == 100
        wire.send(b"ab")
        assert json.loads(wire.response().body)["body"] == "ab"
    with connected(wires) as wire:
        wire.send(head("/", 2, "Expect: 100-continue", version="1.0"))
        wire.send(b"ab")
        assert wire.response().status == 200, "HTTP/1.0 knows no 100"


def lost(wire: Wire) -> bool:
    """Whether the connection ends for somebody who goes on sending."""
    with contextlib.suppress(TimeoutError):
        try:
            wire.send(bytes(500))
        except (ConnectionError, ssl.SSLError):
            return True
    return False


IMPATIENT = {
    "silent": Patience(silence_s=0.2),
    "endless": Patience(total_s=0.4),
    "too much": Patience(most_bytes=1000),
}


@pytest.mark.item(210)
@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("bound", IMPATIENT)
@pytest.mark.parametrize("over_tls", [False, True])
def test_nobody_is_heard_out_for_ever(kind: str, bound: str, over_tls: bool, certificate: Files) -> None:
    tls = tls_context(certificate.certificate, certificate.key) if over_tls else None
    with (
        Wires(kind, tls=tls, patience=IMPATIENT[bound]) as wires,
        connected(wires, certificate.ca if over_tls else None) as wire,
    ):
        wire.send(head("/unread", 22 * MIB, "Connection: close"))
        assert wire.response().status == 413
        if bound == "silent":
            until(lambda: wires.connections() == 0)
        until(lambda: lost(wire))
        until(lambda: wires.connections() == 0)


@pytest.mark.item(210)
def test_rest_of_a_body_is_bounded_on_a_kept_connection_too() -> None:
    with Wires(patience=Patience(most_bytes=1000, silence_s=0.2)) as wires, connected(wires) as wire:
        wire.send(head("/unread", 22 * MIB))
        assert wire.response().status == 413
        until(lambda: lost(wire))
        until(lambda: wires.connections() == 0)


@pytest.mark.item(210)
def test_client_that_does_not_take_the_answer_either_is_given_up() -> None:
    with Wires(patience=Patience(total_s=0.3)) as wires, wires.connect(receive_buffer=4096) as wire:
        wire.send(head("/refused-at-length", 22 * MIB, "Connection: close"))
        until(lambda: wires.connections() == 1)
        until(lambda: wires.connections() == 0)


def test_stop_does_not_wait_for_it() -> None:
    began = time.monotonic()
    with Wires(patience=Patience(total_s=60, silence_s=60)) as wires:
        wire = wires.connect()
        wire.send(head("/unread", 22 * MIB, "Connection: close"))
        assert wire.response().status == 413
        until(lambda: wires.connections() == 1)
    assert time.monotonic() - began < 20
    wire.close()


def test_end_of_the_client_is_the_end(wires: Wires) -> None:
    with connected(wires) as wire:
        wire.send(head("/unread", 22 * MIB, "Connection: close"))
        assert wire.response().status == 413
        wire.plug.shutdown(socket.SHUT_WR)
        until(lambda: wires.connections() == 0)
