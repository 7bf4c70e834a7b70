"""Listening sockets: where they listen, what they inherit, and who waits in them.

The limits and options of sockets, and what a stop does to connections, are in `test_http.py`, over the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from landline.server.exchange import Exchange, HttpRules, Resource
from landline.wire.connection import ConnectionContext, Limits
from landline.wire.listener import BACKLOG, Listener, listening_sockets
from landline.wire.websocket import Refuse
from landline.wire.wheel import Wheel
from support.edges import request, response, serving
from support.wires import listening_socket

DEADLINE_S = 20


async def hello(exchange: Exchange) -> None:
    """An endpoint."""
    await exchange.json(200, b'"hello"')


APP = Resource("/", HttpRules(5, 1000), GET=hello)


# Where


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1", "::"])
def test_every_way_to_name_this_machine_is_listened_on(host: str) -> None:
    try:
        listener = listening_sockets(host, 0)[0]
    except OSError as error:
        if ":" in host:
            pytest.skip(f"no IPv6 here: {error}")
        raise
    with listener:
        there = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, listener.getsockname()[0])
        with socket.create_connection((there, listener.getsockname()[1]), timeout=DEADLINE_S):
            assert not listener.getblocking()


def test_a_name_with_several_addresses_is_listened_on_at_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is 127.0.0.1 to one client and ::1 to the next. The port is the same; an address twice is one."""
    names = ["127.0.0.1", "127.0.0.2"] + ["::1"] * has_ipv6()
    stands_for(monkeypatch, *names, names[0])
    listening = listening_sockets("localhost", 0)
    try:
        (port,) = {each.getsockname()[1] for each in listening}
        assert [each.getsockname()[0] for each in listening] == names
        monkeypatch.undo()
        for there in names:
            socket.create_connection((there, port), timeout=DEADLINE_S).close()
    finally:
        for each in listening:
            each.close()


def has_ipv6() -> bool:
    with contextlib.suppress(OSError):
        for listener in listening_sockets("::1", 0):
            listener.close()
        return True
    return False


def test_an_address_that_this_machine_does_not_have_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    stands_for(monkeypatch, "2001:db8::1", "127.0.0.1")
    (listener,) = listening_sockets("localhost", 0)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    monkeypatch.undo()
    stands_for(monkeypatch, "2001:db8::1", "203.0.113.7")
    with pytest.raises(OSError, match=r".+"):
        listening_sockets("localhost", 0)


def test_none_is_left_open_where_one_cannot_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening_socket("127.0.0.2", 0) as taken:
        before = len(os.listdir("/dev/fd"))
        stands_for(monkeypatch, "127.0.0.1", "127.0.0.2")
        with pytest.raises(OSError, match=r"[Aa]ddress"):
            listening_sockets("localhost", taken.getsockname()[1])
        assert len(os.listdir("/dev/fd")) == before


def stands_for(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name stand for these addresses, whatever the machine's own file says."""
    look_up = socket.getaddrinfo

    def found(host: str, *more: Any, **named: Any) -> list[Any]:
        return [each for address in addresses for each in look_up(address, *more, **named)]

    monkeypatch.setattr("landline.wire.listener.socket.getaddrinfo", found)


@pytest.mark.skipif(sys.platform != "linux", reason="the option is Linux's by this name")
def test_port_can_be_listened_on_again_although_old_connections_linger_there() -> None:
    """The side that hangs up first keeps the port in TIME_WAIT: a restart would fail for a minute."""
    with listening_socket() as listener:
        listener.setblocking(True)
        address = listener.getsockname()
        with socket.create_connection(address, timeout=DEADLINE_S) as client:
            listener.accept()[0].close()
            assert client.recv(1) == b""
    with listening_socket(*address):
        pass


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_socket_that_cannot_listen_is_not_left_open(host: str) -> None:
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match=r".+"):
        listening_socket(host, 0)
    assert len(os.listdir("/dev/fd")) == before


# Who waits


async def test_connections_made_before_the_server_is_ready_are_served_by_it() -> None:
    """A server that comes back opens its log first; meanwhile clients wait in the kernel, as many as there are."""
    with listening_socket() as listening:
        waiting = []
        for _ in range(200):
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(request("GET", "/", "Connection: close"))
            waiting.append((reader, writer))
        wheel = Wheel(asyncio.get_running_loop())
        listener = Listener(APP, [listening], ConnectionContext(Limits(), wheel, lambda _: Refuse(404, [], b"")))
        await listener.start()
        async with asyncio.timeout(DEADLINE_S):
            for reader, writer in waiting:
                assert response(await reader.read()).body == b'"hello"'
                writer.close()
        await listener.stop(1)
        wheel.close()
    assert BACKLOG >= 4096


async def test_date_of_answers_goes_on() -> None:
    async with serving(APP) as served, asyncio.timeout(DEADLINE_S):
        dates = {(await served.ask("GET", "/")).headers["date"]}
        while len(dates) < 3:
            dates.add((await served.ask("GET", "/")).headers["date"])
            await asyncio.sleep(0.1)
    for date in map(parsedate_to_datetime, dates):
        assert abs(date.timestamp() - time.time()) < DEADLINE_S


async def test_stop_may_be_repeated_and_may_come_before_a_start() -> None:
    with listening_socket() as listening:
        wheel = Wheel(asyncio.get_running_loop())
        await Listener(APP, [listening], ConnectionContext(Limits(), wheel, lambda _: Refuse(404, [], b""))).stop(1)
    async with serving(APP) as served:
        assert (await served.ask("GET", "/")).status == 200
        await served.listener.stop(1)
        await served.listener.stop(1)


# A socket that the parent hands over


HAND_OVER = """
import os, sys
descriptor, whose, *arguments = sys.argv[1:]
os.dup2(int(descriptor), 3)
os.environ.update(LISTEN_FDS="1")
if whose != "nobody's":
    os.environ.update(LISTEN_PID=str(os.getpid() if whose == "ours" else 1))
os.execv(sys.executable, [sys.executable, "-m", "landline", *arguments])
"""


class Child:
    """A server that was given a socket by its parent. What it logs goes to `log`."""

    def __init__(self, data: Path, descriptor: int, *, whose: str = "ours", log: Any = None) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LANDLINE_")}
        arguments = [str(descriptor), whose, "serve", "--data", str(data), "--port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, *arguments],
            pass_fds=(descriptor,),
            env=environment | {"LANDLINE_SECRET": "secret-in-the-environment-0123456789"},
            stderr=log or subprocess.PIPE,
        )

    async def stop(self) -> None:
        """SIGTERM; it leaves well."""
        self.process.terminate()
        assert await asyncio.to_thread(self.process.wait, DEADLINE_S) == 0

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


async def live(port: int) -> int:
    """Ask whether somebody lives there; waits as long as a client of ours would."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as session,
        session.get(f"http://127.0.0.1:{port}/live") as answer,
    ):
        return answer.status


@pytest.mark.parametrize("whose", ["ours", "nobody's"])
async def test_while_the_server_is_exchanged_connections_wait_in_the_parents_socket(tmp_path: Path, whose: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as parent:
        port = parent.getsockname()[1]
        with Child(tmp_path / "data", parent.fileno(), whose=whose) as first:
            assert await live(port) == 200
            await first.stop()
        asking = asyncio.create_task(live(port))
        with Child(tmp_path / "data", parent.fileno(), whose=whose) as second:
            assert await asking == 200
            assert await live(port) == 200
            await second.stop()
        assert parent.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


async def test_variables_that_were_meant_for_a_parent_are_not_ours(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as parent,
        (tmp_path / "log").open("wb") as log,
        Child(tmp_path / "data", parent.fileno(), whose="another's", log=log) as child,
    ):
        async with asyncio.timeout(DEADLINE_S):
            while (said := (tmp_path / "log").read_text()).count("\n") < 2:
                assert child.process.poll() is None, said
                await asyncio.sleep(0.02)
        warned, listens = map(json.loads, said.splitlines()[:2])
        assert (warned["level"], warned["listen_pid"]) == ("warning", "1")
        assert warned["event"] == "LISTEN_FDS is for another process and was ignored"
        assert listens["url"] != f"http://127.0.0.1:{parent.getsockname()[1]}"
        await child.stop()


REFUSALS = """
import os, socket, sys
from landline.errors import ConfigurationError
from landline.wire.listener import inherited_socket

def refusal(descriptor, count="1"):
    os.dup2(descriptor, 3) if descriptor >= 0 else os.close(3)
    try:
        return str(inherited_socket({"LISTEN_FDS": count, "LISTEN_PID": "7"}, 7))
    except ConfigurationError as error:
        return error.message

good, silent, local = socket.create_server(("127.0.0.1", 0)), socket.socket(), socket.socket(socket.AF_UNIX)
datagrams = socket.socket(type=socket.SOCK_DGRAM)
local.bind(sys.argv[1])
local.listen()
for each in (good, silent, local, datagrams):
    print(refusal(each.fileno(), "2" if each is good else "1"))
print(refusal(os.open(os.devnull, os.O_RDONLY)))
print(refusal(-1))
"""


def test_anything_but_one_listening_socket_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REFUSALS, str(tmp_path / "socket")], capture_output=True, text=True, timeout=DEADLINE_S
    )
    none = "LISTEN_FDS: this is no listening TCP socket"
    assert (done.stderr, done.stdout.splitlines()) == (
        "",
        [
            "LISTEN_FDS: exactly one socket is expected",
            none,
            none,
            none,
            "LISTEN_FDS: Socket operation on non-socket",
            "LISTEN_FDS: Bad file descriptor",
        ],
    )


async def test_server_that_is_handed_something_else_does_not_start(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, Child(tmp_path / "data", file.fileno()) as child:
        _, stderr = child.process.communicate(timeout=DEADLINE_S)
        assert (child.process.returncode, stderr) == (2, b"landline: LISTEN_FDS: Socket operation on non-socket\n")
    assert not (tmp_path / "data").exists()
