"""What we rely on in uvicorn and httptools and what neither of them promises. The pinned range has passed with this."""

from __future__ import annotations

import asyncio
import gc
import inspect
import re
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec

import httptools
import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from landline.wire.connection import HttpProtocol
from landline.wire.request import Request
from support.wires import Wires, handshake, masked, until

LOOPS = ["asyncio", "uvloop"] if find_spec("uvloop") else ["asyncio"]


def garbage_of(wires: Wires, work: Callable[[], None]) -> Counter[str]:
    """What `work` leaves behind that only the garbage collector can free, by type.

    What asyncio's own transports leave is not counted: each points at itself through a method; uvloop's do not."""
    wires.call(gc.collect)
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        work()
        wires.call(gc.collect)
        kinds = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    transports = kinds["asyncio.selector_events._SelectorSocketTransport"]
    for kind in [kind for kind, count in kinds.items() if kind.startswith(("asyncio.", "socket.", "builtins."))]:
        kinds[kind] -= min(kinds[kind], 2 * transports)
    return +kinds


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("path", ["/plain", "/later"])
def test_upgrade_leaves_nothing_for_the_garbage_collector(kind: str, path: str) -> None:
    with Wires(kind) as wires:
        wires.call(wires.decide.set)

        def upgrade(count: int) -> None:
            for _ in range(count):
                with wires.connect() as wire:
                    wire.send(handshake(path) + masked(0x88))
                    assert wire.response().status == 101
                    assert wire.close_frame() == (None, "")
                    assert wire.at_end()
            until(lambda: all(handler.of("closed") for handler in wires.handlers))
            wires.handlers.clear()
            wires.upgrades.clear()

        upgrade(20)  # what is made once is made now
        garbage = garbage_of(wires, lambda: upgrade(1000))
        assert garbage.total() < 100, garbage.most_common(5)


def _living() -> tuple[int, int]:
    """How many objects of HTTP connections are alive, those of tests before this one included."""
    gc.collect()
    living = gc.get_objects()
    return tuple(sum(isinstance(each, kind) for each in living) for kind in (HttpProtocol, Request))


@pytest.mark.parametrize("kind", LOOPS)
def test_open_sockets_hold_nothing_of_their_requests(kind: str) -> None:
    with Wires(kind) as wires:
        before = wires.call(_living)
        plugs = [wires.websocket("/plain") for _ in range(20)]
        wires.upgrades.clear()
        assert wires.call(_living) == before
        assert wires.connections() == 0
        for plug in plugs:
            plug.close()


def test_http_protocol_is_built_by_these_names() -> None:
    source = inspect.getsource(uvicorn.Server.startup)
    for name in ("config=config", "server_state=self.server_state", "app_state=self.lifespan.state", "_loop=_loop"):
        assert name in source
        assert name.partition("=")[0] in inspect.signature(HttpProtocol.__init__).parameters


def test_server_asks_of_a_connection_only_what_ours_has() -> None:
    """Everything that uvicorn does with the connections it is told of."""
    source = inspect.getsource(uvicorn.Server)
    assert set(re.findall(r"\bconnection\.(\w+)", source)) == {"shutdown"}
    assert callable(HttpProtocol.shutdown)


def test_server_state_still_has_what_connections_share() -> None:
    shared = vars(ServerState())
    assert (shared["connections"], shared["tasks"], shared["total_requests"]) == (set(), set(), 0)
    assert shared["default_headers"] == []


def test_flow_control_still_has_what_is_used() -> None:
    flow = FlowControl(asyncio.Transport())
    assert (flow.read_paused, flow.write_paused) == (False, False)
    for name in ("pause_reading", "resume_reading", "pause_writing", "resume_writing", "drain"):
        assert callable(getattr(flow, name))


@pytest.mark.parametrize("name", ["startup", "on_tick", "shutdown"])
def test_server_can_be_started_without_its_signal_handlers(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(uvicorn.Server, name))
    assert "signal" not in inspect.getsource(getattr(uvicorn.Server, name))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding can't be present with Content-Length"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3", "Content-Length can't be present with Transfer-Encoding"),
        (b"Content-Length: 3\r\nContent-Length: 4", "Duplicate Content-Length"),
        (b"A: b\r\n c", "Unexpected whitespace after header value"),
    ],
)
def test_parser_refuses_by_itself_what_d_52_wants_refused(head: bytes, message: str) -> None:
    parser = httptools.HttpRequestParser(object())
    with pytest.raises(httptools.HttpParserError, match=message):
        parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\nabc")


def test_parser_tells_where_an_upgrade_ends() -> None:
    class Listening:
        def on_message_begin(self) -> None: ...
        def on_message_complete(self) -> None: ...

    head = handshake()
    parser = httptools.HttpRequestParser(Listening())
    with pytest.raises(httptools.HttpParserUpgrade) as upgrade:
        parser.feed_data(head + b"behind")
    assert upgrade.value.args == (len(head),)
