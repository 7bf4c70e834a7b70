"""How many connections one address has: counted whatever they do, refused at no cost, and free again when they end."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from landline.server.certificates import Files, make_certificate
from landline.wire.crowd import Crowd, crowd_of
from landline.wire.listener import tls_context
from support.edges import request
from support.wires import DEADLINE_S, Wire, Wires, until

LOOPS = ["asyncio", "uvloop"] if find_spec("uvloop") else ["asyncio"]
PROXIES = (ipaddress.ip_network("10.1.0.0/16"),)


def entered(crowd: Crowd, *hosts: str) -> list[bool]:
    return [crowd.enter(host) is not None for host in hosts]


def test_an_address_is_counted_however_it_is_written_and_a_64_is_one() -> None:
    crowd = Crowd(2)
    assert entered(crowd, "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2") == [True, True, False, True]
    there = ["2001:db8:0:1::1", "2001:db8::1:ffff:0:0:2", "2001:db8:0:1::3%eth0", "2001:db8:0:2::1"]
    assert entered(crowd, *there) == [True, True, False, True]


def test_who_leaves_makes_room_and_nothing_is_kept_of_who_has_left() -> None:
    crowd = Crowd(1)
    place = crowd.enter("192.0.2.1")
    assert place is not None
    assert crowd.enter("192.0.2.1") is None
    place.leave()
    again = crowd.enter("192.0.2.1")
    assert again is not None
    again.leave()
    assert crowd._places == {}


def test_proxies_that_are_trusted_and_this_machine_are_not_bounded() -> None:
    crowd = crowd_of(1, PROXIES)
    assert crowd is not None
    assert all(entered(crowd, *["10.1.2.3", "127.0.0.1", "::1", "::ffff:127.0.0.1"] * 3))
    assert entered(crowd, "10.2.0.1", "10.2.0.1") == [True, False]
    assert crowd_of(0, ()) is None


# Over the wire, where this machine is counted like any other.


@pytest.fixture(params=LOOPS)
def wires(request: pytest.FixtureRequest) -> Iterator[Wires]:
    with Wires(request.param, crowd=Crowd(3, exempt=())) as wires:
        yield wires


def test_one_too_many_is_told_so_whatever_the_others_do(wires: Wires) -> None:
    streaming = wires.websocket("/echo")
    asking = wires.connect()
    asking.send(request("GET", "/"))
    assert asking.response().status == 200
    idle = wires.connect()
    until(lambda: wires.connections() == 2)
    for _ in range(20):
        with wires.connect() as refused:
            answer = refused.response()
            assert answer.status == 429
            assert json.loads(answer.body)["error"]["code"] == "RateLimited"
            assert int(answer.headers["retry-after"]) >= 1
            assert refused.at_end()
    # Each of them makes room when it ends, and who stays is served.
    for ending in (streaming, asking, idle):
        ending.close()
        until(lambda: one_is_served(wires))
    with wires.connect() as one, wires.connect() as other:
        for each in (one, other):
            each.send(request("GET", "/"))
            assert each.response().status == 200


def one_is_served(wires: Wires) -> bool:
    with wires.connect() as wire:
        wire.send(request("GET", "/"))
        try:
            return wire.response().status == 200
        except (EOFError, ConnectionError):
            return False


def test_the_log_names_the_setting_once(wires: Wires, capsys: pytest.CaptureFixture[str]) -> None:
    with wires.connect(), wires.connect(), wires.connect():
        until(lambda: wires.connections() == 3)
        for _ in range(5):
            with wires.connect() as refused:
                assert refused.response().status == 429
    assert capsys.readouterr().out.count("connections_per_address") == 1


# Under TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificate(tmp_path_factory.mktemp("tls"), ("127.0.0.1",), dt.datetime.now(dt.UTC))


@pytest.fixture(params=LOOPS)
def tls_wires(request: pytest.FixtureRequest, files: Files) -> Iterator[Wires]:
    tls = tls_context(files.certificate, files.key)
    with Wires(request.param, crowd=Crowd(3, exempt=()), tls=tls, header_timeout_s=0.5) as wires:
        yield wires


def shaken(wires: Wires, files: Files) -> Wire:
    """A connection whose handshake is over."""
    plug = socket.create_connection(("127.0.0.1", wires.port), timeout=DEADLINE_S)
    try:
        return Wire(ssl.create_default_context(cafile=files.ca).wrap_socket(plug, server_hostname="127.0.0.1"))
    except BaseException:
        plug.close()
        raise


def is_served(wires: Wires, files: Files) -> bool:
    try:
        with shaken(wires, files) as wire:
            wire.send(request("GET", "/", "Connection: close"))
            return wire.response().status == 200
    except (OSError, EOFError):
        return False


def test_handshakes_count_before_they_are_over_and_have_the_time_that_a_head_has(
    tls_wires: Wires, files: Files
) -> None:
    began = time.monotonic()
    silent = [tls_wires.connect() for _ in range(3)]
    refused = tls_wires.connect()
    assert refused.at_end()
    assert time.monotonic() - began < 0.5
    for each in (refused, *silent):
        assert each.at_end()
        each.close()
    assert 0.4 < time.monotonic() - began < 5
    until(lambda: is_served(tls_wires, files))


def test_a_handshake_that_trickles_has_no_more_time(tls_wires: Wires, files: Files) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context(cafile=files.ca).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    wire = tls_wires.connect()
    wire.plug.settimeout(0.05)
    began, ended = time.monotonic(), False
    for byte in outgoing.read():
        try:
            wire.plug.send(bytes([byte]))
            ended = wire.plug.recv(1) == b""
        except TimeoutError:
            pass
        except ConnectionError:
            ended = True
        if ended:
            break
    assert ended
    assert 0.4 < time.monotonic() - began < 5
    wire.close()


def test_what_is_no_handshake_ends_and_makes_room(tls_wires: Wires, files: Files) -> None:
    for _ in range(10):
        with tls_wires.connect() as wire:
            wire.send(b"GET / HTTP/1.1\r\n\r\n")
            wire.plug.settimeout(DEADLINE_S)
            assert not wire.plug.recv(100).startswith(b"HTTP")
    until(lambda: is_served(tls_wires, files))
    streaming = [shaken(tls_wires, files) for _ in range(3)]
    until(lambda: not is_served(tls_wires, files))
    for each in streaming:
        each.close()
    until(lambda: is_served(tls_wires, files))


@pytest.mark.parametrize("kind", LOOPS)
def test_a_stop_refuses_who_comes_and_cuts_handshakes(kind: str, files: Files) -> None:
    with Wires(kind, tls=tls_context(files.certificate, files.key)) as wires:
        half = wires.connect()
        serving = shaken(wires, files)
        wires.call(wires.listener.stop_listening)
        until(lambda: not is_served(wires, files))
        serving.send(request("GET", "/"))
        assert serving.response().status == 200
        serving.close()
    assert half.at_end()
    half.close()
