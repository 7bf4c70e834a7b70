"""What all endpoints share (spec 3): who asks and for what, how an answer looks, what a failure becomes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, MutableMapping
from ipaddress import ip_network
from typing import Any

import pytest
import pytest_asyncio
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from landline.errors import BadArgument, BotRejected, Draining, TokenExpired
from landline.server.exchange import GRACE_S, Exchange, HttpRules, Resource
from landline.wire.answers import EXTENSION, Arrival, operation_id
from landline.wire.wheel import Wheel
from support.edges import Served, request, response, serving
from support.wires import Response

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://www.example.org"
LIMIT = 1000

Logged = list[MutableMapping[str, Any]]


async def tell(exchange: Exchange) -> None:
    """An endpoint that answers what it was asked."""
    body = await exchange.json_body()
    asked = {"a": exchange.query("a"), "body": body.decode("latin-1"), "base": exchange.base_url()}
    await exchange.json(200, json.dumps(asked).encode())


async def credential(exchange: Exchange) -> None:
    """One that answers the credential."""
    await exchange.json(200, json.dumps(exchange.bearer()).encode())


def raising(error: Exception) -> Callable[[Exchange], Any]:
    """One that fails."""

    async def fail(exchange: Exchange) -> None:
        raise error

    return fail


def resource(**changes: Any) -> Resource:
    """A resource for `tell` with these rules."""
    return Resource("/a/{thing}", HttpRules(**{"deadline_s": 5, "body_bytes": LIMIT, **changes}), GET=tell, POST=tell)


class Stage:
    """A server for the whole file that serves whatever is put on it."""

    app: ASGIApp
    served: Served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


stage = Stage()


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def raised() -> AsyncIterator[None]:
    """The stage is up."""
    async with serving(stage) as stage.served:
        yield


async def ask(app: ASGIApp, method: str, path: str, *headers: str, body: bytes = b"", **more: Any) -> Response:
    """One request to `app`."""
    stage.app = app
    return await stage.served.ask(method, path, *headers, body=body, **more)


async def told(app: ASGIApp, path: str, *headers: str, body: bytes = b"", **more: Any) -> dict[str, Any]:
    """What `tell` was asked by a POST."""
    answer = await ask(app, "POST", path, *headers, body=body, **more)
    assert answer.status == 200, answer
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


def requests(logged: Logged) -> Logged:
    """The lines that stand for a request each."""
    return [event for event in logged if event["event"] == "request"]


# The operation id and the log


async def test_operation_ids_never_repeat() -> None:
    assert len({operation_id() for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize(
    ("endpoint", "status"),
    [(tell, 200), (raising(BadArgument("no")), 400), (raising(Draining()), 503), (raising(ZeroDivisionError()), 500)],
    ids=["good", "refused", "draining", "broken"],
)
async def test_operation_id_of_every_answer_stands_in_the_log(endpoint: Any, status: int) -> None:
    with capture_logs() as logged:
        answer = await ask(Resource("/a", HttpRules(5, LIMIT), GET=endpoint), "GET", "/a")
    assert answer.status == status
    (event,) = requests(logged)
    assert event["operation"] == answer.headers["x-correlating-operationid"]
    assert (event["status"], event["route"], event["method"]) == (status, "/a", "GET")
    assert event["log_level"] == ("warning" if status >= 500 else "info")
    assert 0 <= event["ms"] < 5000


async def test_log_has_neither_path_nor_query_nor_credential_nor_body() -> None:
    with capture_logs() as logged:
        await ask(
            resource(),
            "POST",
            "/a/b-secret?t=t-secret&watermark=w-secret",
            "Authorization: Bearer c-secret",
            "Cookie: dl_session=d-secret",
            body=b'"e-secret"',
        )
    assert requests(logged)
    assert "secret" not in repr(logged)


@pytest.mark.parametrize(
    ("said", "agent"),
    [
        ("DirectLine/3.0 (directlinejs 0.15.8)", "DirectLine/3.0 (directlinejs 0.15.8)"),
        ("x y " * 7_000, "x y " * 25),
        ("Mine/1.0 (of-somebody; key=0123456789abcdef)", "Mine/1.0 (of-somebody; key=0123456789abcdef)"),
        ("Mine/1.0 (key 0123456789abcdef-._~%+/=)", "Mine/1.0 (key ...)"),
        ("a\x9b2J\xfc\tb", "a?2J??b"),
        ("", ""),
    ],
    ids=["as DirectLineJS", "long", "as long as no secret", "as long as a secret", "what a terminal obeys", "empty"],
)
async def test_log_names_the_clients_library_where_it_names_itself(said: str, agent: str) -> None:
    with capture_logs() as logged:
        await ask(resource(), "GET", "/a/b", f"X-Ms-Bot-Agent: {said}")
        await ask(resource(), "GET", "/a/b")
    with_agent, without = requests(logged)
    assert with_agent["agent"] == agent
    assert "agent" not in without


# Who asks


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "token",
        "Bearer two words",
        "Bearer,token",
        "BearerToken x y",
        "Token x",
    ],
)
async def test_anything_but_one_bearer_credential_is_401(header: str | None) -> None:
    lines = () if header is None else (f"Authorization: {header}",)
    answer = await ask(Resource("/", HttpRules(5, LIMIT), GET=credential), "GET", "/", *lines)
    assert (answer.status, answer.error["code"]) == (401, "BadArgument")
    assert answer.error["message"] == "Missing token or secret"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_scheme_of_the_credential_may_be_written_in_any_case(scheme: str) -> None:
    answer = await ask(
        Resource("/", HttpRules(5, LIMIT), GET=credential), "GET", "/", f"Authorization: {scheme}  a.b-c "
    )
    assert json.loads(answer.body) == "a.b-c"


# What is asked


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", None),
        ("b=1", None),
        ("a", ""),
        ("a=", ""),
        ("a=1", "1"),
        ("a=1&a=2", "1"),
        ("a=&a=2", ""),
        ("b=1&a=%2D%2d1%7Cx+y", "--1|x y"),
        ("%61=1", "1"),
        ("a=%C3%A4", "ä"),
        ("a=%FF", "�"),
        ("a=%zz", "%zz"),
        ("A=1", None),
    ],
)
async def test_first_parameter_of_a_name_counts_and_empty_is_not_absent(query: str, found: str | None) -> None:
    assert (await told(resource(), f"/a/b?{query}"))["a"] == found


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        "text/json",
        "Application/JSON ;x=y",
        "",
        None,
    ],
)
async def test_json_may_call_itself_what_it_likes_within_reason(kind: str | None) -> None:
    lines = () if kind is None else (f"Content-Type: {kind}",)
    assert (await told(resource(), "/", *lines, body=b"{}"))["body"] == "{}"


@pytest.mark.parametrize("kind", ["application/xml", "text/plain", "application/x-www-form-urlencoded", "json", ";"])
async def test_body_that_calls_itself_something_else_is_415(kind: str) -> None:
    for lines, body in (((), b"{}"), (("Transfer-Encoding: chunked",), b"2\r\n{}\r\n0\r\n\r\n")):
        answer = await ask(resource(), "POST", "/", f"Content-Type: {kind}", *lines, body=body)
        assert (answer.status, answer.error["code"]) == (415, "BadArgument")


@pytest.mark.parametrize(
    ("lines", "body"), [((), b""), (("Content-Length: 0",), b""), (("Transfer-Encoding: chunked",), b"0\r\n\r\n")]
)
async def test_what_an_empty_body_calls_itself_means_nothing(lines: tuple[str, ...], body: bytes) -> None:
    assert (await told(resource(), "/", "Content-Type: text/plain", *lines, body=body))["body"] == ""


async def test_body_that_calls_itself_something_else_is_not_read_to_its_end() -> None:
    lines = ("Transfer-Encoding: chunked", "Content-Type: text/plain")
    answer = await ask(resource(), "POST", "/", *lines, body=b"%x\r\n{" % (LIMIT * 2))
    assert (answer.status, answer.error["code"]) == (415, "BadArgument")


async def test_empty_body_that_does_not_end_is_408_at_the_deadline() -> None:
    lines = ("Transfer-Encoding: chunked", "Content-Type: text/plain")
    answer = await ask(resource(deadline_s=0.2), "POST", "/", *lines, body=b"0\r\n")
    assert (answer.status, answer.error["code"]) == (408, "BadArgument")


# Codings


@pytest.mark.item(200)
@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Encoding: gzip",),
        ("content-encoding: x-gzip",),
        ("Content-Encoding: br",),
        ("Content-Encoding: identity, gzip",),
        ("Content-Encoding: identity", "Content-Encoding: deflate"),
        ("Content-Encoding: gzip", "Content-Type: application/xml"),
    ],
)
async def test_body_that_says_it_is_compressed_is_415_and_told_what_is_taken(lines: tuple[str, ...]) -> None:
    chunked = ("Transfer-Encoding: chunked",)
    for more, body in (((), b"{}"), (chunked, b"2\r\n{}\r\n0\r\n\r\n")):
        answer = await ask(resource(), "POST", "/", *lines, *more, body=body)
        assert (answer.status, answer.error["code"]) == (415, "BadArgument")
        assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.item(200)
@pytest.mark.parametrize("coding", ["identity", "IDENTITY", "identity, identity", ""])
async def test_body_that_says_it_is_not_compressed_is_read(coding: str) -> None:
    assert (await told(resource(), "/", f"Content-Encoding: {coding}", body=b"{}"))["body"] == "{}"


@pytest.mark.item(200)
async def test_what_an_absent_body_is_compressed_with_means_nothing() -> None:
    assert (await told(resource(), "/", "Content-Encoding: gzip", "Content-Length: 0"))["body"] == ""


# How much, and how fast


async def test_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_413() -> None:
    app = resource()
    for body in (b"x" * LIMIT, b"x" * (LIMIT + 1)):
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        for answer in (
            await ask(app, "POST", "/", body=body),
            await ask(app, "POST", "/", "Transfer-Encoding: chunked", body=chunked),
        ):
            if len(body) == LIMIT:
                assert (answer.status, len(json.loads(answer.body)["body"])) == (200, LIMIT)
            else:
                assert (answer.status, answer.error["code"]) == (413, "MessageSizeTooBig")


async def test_declared_length_over_the_limit_is_413_before_anybody_is_asked() -> None:
    app = Resource("/", HttpRules(5, LIMIT), POST=credential)
    answer = await ask(app, "POST", "/", f"Content-Length: {LIMIT + 1}")
    assert answer.status == 413


async def test_undeclared_length_is_measured_after_the_credential() -> None:
    """Step 3 of 3.4 knows only what is declared; what is not is measured while reading, which is after step 4."""
    app = Resource("/", HttpRules(5, LIMIT), POST=credential)
    answer = await ask(app, "POST", "/", "Transfer-Encoding: chunked", body=b"%x\r\n" % (LIMIT + 1))
    assert answer.status == 401


async def test_body_that_is_not_complete_at_the_deadline_is_408() -> None:
    loop = asyncio.get_running_loop()
    async with serving(resource(deadline_s=0.3)) as served:
        began = loop.time()
        answer = response(
            await served.exchange(request("POST", "/", "Content-Length: 9", "Connection: close") + b"abc")
        )
    assert (answer.status, answer.error["code"]) == (408, "BadArgument")
    assert 0.3 <= loop.time() - began < 0.3 + GRACE_S


async def test_client_that_hangs_up_in_its_body_is_not_answered_and_alarms_nobody() -> None:
    with capture_logs() as logged:
        async with serving(resource()) as served:
            _, writer = await served.connect()
            writer.write(request("POST", "/", "Content-Length: 9") + b"abc")
            await writer.drain()
            async with asyncio.timeout(5):
                while not served.listener._server.server_state.tasks:
                    await asyncio.sleep(0.005)
                writer.transport.abort()
                while not requests(logged):
                    await asyncio.sleep(0.005)
    assert [(event["status"], event["log_level"]) for event in logged] == [(0, "info")]


async def hang(exchange: Exchange) -> None:
    """An endpoint that waits for a disk that does not answer."""
    if exchange.scope["method"] == "POST":
        await exchange.body()
    await asyncio.Event().wait()


async def test_what_hangs_all_the_same_is_answered_soon_after_the_deadline() -> None:
    """8.6: the answer must come before clients give up, whatever hangs. Only a write has an unknown outcome, and only
    for it the commit that may be running is waited for."""
    app = Resource("/", HttpRules(0.1, LIMIT), GET=hang, POST=hang)
    loop = asyncio.get_running_loop()
    async with serving(app) as served:
        began = loop.time()
        writing = asyncio.create_task(served.ask("POST", "/"))
        read = await served.ask("GET", "/")
        assert 0.1 <= loop.time() - began < 0.1 + GRACE_S
        written = await writing
        passed = loop.time() - began
    assert 0.1 + GRACE_S <= passed < 0.1 + GRACE_S + 2
    for answer in (read, written):
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "ServiceError", "1")
    assert "unknown" in written.error["message"]
    assert "unknown" not in read.error["message"]


async def test_the_last_moment_of_an_answer_is_before_clients_give_up() -> None:
    """DirectLineJS gives up after 20 s; 15 is the default deadline and 18 what is promised (8.6, item 194)."""
    assert 15 + GRACE_S < 18


# Methods


async def test_method_that_is_not_served_is_405_and_told_which_are() -> None:
    for method in ("PUT", "DELETE", "PATCH"):
        answer = await ask(resource(), method, "/")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
        assert answer.error["code"] == "BadArgument"


async def test_method_is_judged_before_the_length() -> None:
    answer = await ask(resource(), "PUT", "/", f"Content-Length: {LIMIT + 1}")
    assert answer.status == 405


async def test_resource_without_methods_is_nothing() -> None:
    answer = await ask(Resource("unknown", HttpRules(5, LIMIT)), "POST", "/")
    assert (answer.status, answer.error["code"]) == (404, "BadArgument")


# Failures


async def test_unexpected_failure_is_500_without_a_word_about_it() -> None:
    app = Resource("/a", HttpRules(5, LIMIT), GET=raising(ValueError("the password is swordfish")))
    with capture_logs() as logged:
        answer = await ask(app, "GET", "/a", f"Origin: {ORIGIN}")
    assert answer.status == 500
    assert answer.error == {"code": "ServiceError", "message": "Internal error"}
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    failure = next(event for event in logged if event["event"] == "unexpected failure")
    assert (failure["route"], failure["operation"]) == ("/a", answer.headers["x-correlating-operationid"])


async def test_failure_behind_the_answer_does_not_answer_again() -> None:
    async def late(exchange: Exchange) -> None:
        await exchange.json(200, b"{}")
        raise TokenExpired

    answer = await ask(Resource("/", HttpRules(5, LIMIT), GET=late), "GET", "/")
    assert (answer.status, answer.body) == (200, b"{}")


async def test_answer_of_the_bot_is_shown_only_where_the_operator_asked_for_it() -> None:
    endpoint = raising(BotRejected(500, b'{"trace":"line 7"}'))
    for shown in (False, True):
        answer = await ask(Resource("/", HttpRules(5, LIMIT, show_inner=shown), GET=endpoint), "GET", "/")
        error = json.loads(answer.body)["error"]
        assert (answer.status, error["code"]) == (502, "BotRejectedActivity")
        assert error.get("innerHttpError") == ({"statusCode": 500, "body": {"trace": "line 7"}} if shown else None)


# Pages on other origins


async def test_preflight_allows_what_was_asked_for_or_else_what_clients_are_known_to_send() -> None:
    asked = "authorization,content-type,x-ms-bot-agent,x-requested-with,x-new"
    for lines, allowed in (
        ((f"Access-Control-Request-Headers: {asked}",), set(asked.split(","))),
        (
            (),
            {"authorization", "content-type", "accept", "x-ms-bot-agent", "x-requested-with", "idempotency-key"},
        ),
    ):
        answer = await ask(resource(), "OPTIONS", "/", f"Origin: {ORIGIN}", *lines)
        assert (answer.status, answer.body) == (204, b"")
        assert "content-length" not in answer.headers
        assert set(re.split(", *", answer.headers["access-control-allow-headers"].lower())) == allowed
        assert answer.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
        assert answer.headers["access-control-max-age"] == "7200"
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["vary"] == "Origin"
        assert answer.headers["x-correlating-operationid"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_origin_is_echoed_in_good_answers_and_in_errors(method: str) -> None:
    answer = await ask(resource(), method, "/", f"Origin: {ORIGIN}")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["vary"] == "Origin"
    assert {"Retry-After", "X-Correlating-OperationId", "X-DirectLine-Replay"} <= set(
        answer.headers["access-control-expose-headers"].split(", ")
    )
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (ORIGIN, True),
        ("https://WWW.example.org", True),
        ("https://example.org", False),
        ("http://www.example.org", False),
        ("https://www.example.org.evil.example", False),
        ("null", False),
    ],
)
async def test_only_listed_origins_are_allowed_where_there_is_a_list(origin: str, allowed: bool) -> None:
    answer = await ask(resource(cors_origins=frozenset((ORIGIN,))), "GET", "/", f"Origin: {origin}")
    assert answer.status == 200
    assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
    assert answer.headers["vary"] == "Origin"


@pytest.mark.bot_item(53)
@pytest.mark.item(2)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT"])
async def test_what_is_not_for_browsers_has_an_operation_id_and_no_cross_origin_header(method: str) -> None:
    answer = await ask(resource(cross_origin=False), method, "/", f"Origin: {ORIGIN}")
    assert answer.status == (200 if method == "GET" else 405)
    assert answer.headers["x-correlating-operationid"]
    assert not [name for name in answer.headers if name.startswith("access-control") or name == "vary"]


# The public base


async def base(*headers: str, host: str = "here", **rules: Any) -> str:
    """The base of the URLs that this request is given."""
    return str((await told(resource(**rules), "/", *headers, host=host))["base"])


LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1"))
FORWARDED = ("X-Forwarded-Proto: https", "X-Forwarded-Host: chat.example:444", "X-Forwarded-Prefix: /chat/")


async def test_configured_base_is_given_whatever_the_request_says() -> None:
    given = await base(*FORWARDED, public_url="https://configured.example/x", trusted_proxies=LOOPBACK)
    assert given == "https://configured.example/x"


@pytest.mark.parametrize("host", ["here", "chat.example:3000", "127.0.0.1:80", "[::1]:3000", "under_score", "xn--a.de"])
async def test_base_is_where_the_request_was_sent_to(host: str) -> None:
    assert await base(host=host) == f"http://{host}"


async def test_forwarded_headers_from_anybody_are_not_believed() -> None:
    assert await base(*FORWARDED) == "http://here"
    assert await base(*FORWARDED, trusted_proxies=(ip_network("10.0.0.0/8"),)) == "http://here"


async def test_forwarded_headers_from_a_trusted_proxy_are_believed() -> None:
    assert await base(*FORWARDED, trusted_proxies=LOOPBACK) == "https://chat.example:444/chat"
    assert await base("X-Forwarded-Proto: HTTPS", trusted_proxies=LOOPBACK) == "https://here"
    assert await base(trusted_proxies=LOOPBACK) == "http://here"


async def test_of_several_forwarded_values_the_one_of_the_nearest_proxy_counts() -> None:
    lines = ("X-Forwarded-Host: forged.example", "X-Forwarded-Host: far.example, near.example")
    assert await base(*lines, trusted_proxies=LOOPBACK) == "http://near.example"


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:11.1.2.3", False),
        ("fd00::7", True),
        ("fd00::7%eth0", True),
        ("fd01::7", False),
    ],
)
async def test_proxies_are_known_by_address_and_network_in_every_form(address: str, trusted: bool) -> None:
    rules = HttpRules(5, LIMIT, trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("fd00::/16")))

    async def nothing(*_: object) -> Any:
        raise AssertionError

    headers = {b"host": b"here", b"x-forwarded-host": b"chat.example"}
    scope = {
        "scheme": "http",
        "client": (address, 1234),
        "headers": list(headers.items()),
        "extensions": {EXTENSION: Arrival(headers, Wheel(asyncio.get_running_loop()), nothing)},
    }

    exchange = Exchange(scope, nothing, nothing, rules)
    assert exchange.base_url() == ("http://chat.example" if trusted else "http://here")


@pytest.mark.parametrize(
    "lines",
    [
        ("X-Forwarded-Host: a b",),
        ("X-Forwarded-Host: a/b",),
        ("X-Forwarded-Host: a@b",),
        ("X-Forwarded-Proto: ftp",),
        ('X-Forwarded-Prefix: /"',),
        ("X-Forwarded-Prefix: chat",),
        ("X-Forwarded-Prefix: /a?b",),
        ("X-Forwarded-Prefix: //evil.example",),
    ],
)
async def test_what_makes_no_url_is_400(lines: tuple[str, ...]) -> None:
    answer = await ask(resource(trusted_proxies=LOOPBACK), "POST", "/", *lines)
    assert (answer.status, answer.error["code"]) == (400, "BadArgument")


@pytest.mark.parametrize("host", ["a b", "a/b", "user@here", "here:x", "here?", '"'])
async def test_host_that_is_none_is_400(host: str) -> None:
    assert (await ask(resource(), "POST", "/", host=host)).status == 400


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
async def test_header_with_a_line_break_becomes_no_second_header(value: bytes) -> None:
    async def echoes(exchange: Exchange) -> None:
        await exchange.json(200, b"{}", (b"x-echo", value))

    answer = await ask(Resource("/", HttpRules(5, LIMIT), GET=echoes), "GET", "/")
    assert answer.status == 500
    assert "set-cookie" not in answer.headers
