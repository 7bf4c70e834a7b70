"""The OpenAPI document: that it is one, that it has what the router has, and that the server keeps what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import hypothesis
import jsonschema_rs
import pytest
import requests
import schemathesis
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from landline.config import Settings
from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.server import admin, connector, directline
from landline.server.app import Server
from landline.server.exchange import Resource
from support.bot_trust import APP_ID, APP_SECRETS

SECRET = "a-secret-from-the-environment"
ORIGIN = "https://www.example.org"
EXAMPLES = 6
"""Requests per operation, way of making them up, and how much of what they say is true."""
KEPT = (
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
)
"""What has to hold of every answer."""
SEED = random.randrange(2**32)


class Served(NamedTuple):
    """A server that runs in another thread, and what opens it."""

    url: str
    document: dict[str, Any]
    methods: dict[str, set[str]]
    """What the router has: methods by the path they are at."""
    opening: dict[str, str]
    """Values of the parameters that lead to something, and the credential for each kind of security."""
    spare: dict[str, str]
    """What operators may change and remove without harm to the rest, in place of those values."""


@contextlib.asynccontextmanager
async def serving(data: Path) -> AsyncIterator[Served]:
    """A server where nobody is ever too quick, with one conversation and a bot that takes everything, shows who it is
    and may do what bots may."""
    rates = dict.fromkeys(("sends_per_s", "polls_per_s", "starts_per_s"), 10_000)
    async with ScriptedBot() as bot:
        server = Server(
            Settings(
                data=data,
                port=0,
                secret=SECRET,
                bot=bot.endpoint,
                bot_app_id=APP_ID,
                bot_app_secret=APP_SECRETS[:1],
                bot_create_conversations=True,
                **rates,
            )
        )
        await server.start()
        try:
            async with DirectLine(f"{server.url}{directline.PREFIX}", SECRET) as client:
                # A user, so that `from` may be absent; and a page that may know its session.
                token = await client.generate(user={"id": "dl_7f3c"}, trustedOrigins=[ORIGIN])
                opened = await client.using(token.token).start()
                conversation = opened.conversation_id
                await bot.wait_for(lambda each: each.conversation_id == conversation)
            form = {"grant_type": "client_credentials", "client_id": APP_ID, "client_secret": APP_SECRETS[0]}
            granted = (await bot.request("POST", f"{server.url}/oauth2/v2.0/token", data=form)).json["access_token"]
            shown = {"Authorization": f"Bearer {granted}"}
            message = {"type": "message", "text": "hello"}
            file = {"type": "image/png", "name": "a.png", "originalBase64": "iVBORw0KGgo="}
            base = f"{bot.service_url(conversation)}/v3/conversations/{conversation}"
            said = await bot.request("POST", f"{base}/activities", json=message, headers=shown)
            attached = await bot.request("POST", f"{base}/attachments", json=file, headers=shown)
            document = (await bot.request("GET", f"{server.url}/openapi.json")).json
            admin_secret = (data / "admin-secret").read_text("utf-8").strip()
            resources = [route.endpoint for route in server.routes if isinstance(route.endpoint, Resource)]
            opening = {
                "conversation": conversation,
                "key": bot.service_url(conversation).rpartition("/")[2],
                "activity": said.json["id"],
                "attachment": attached.json["id"],
                "filename": "a.png",
                "view": "original",
                "Origin": ORIGIN,
                "member": "dl_7f3c",
                "t": opened.stream_url.rpartition("t=")[2],
                "secret": SECRET,
                "token": opened.token,
                "bot": granted,
                "admin": admin_secret,
                **form,
            }
            spare = {
                "bot": "spare",
                "site": "spare-site",
                "bot_id": "spare",
                "number": "1",
                "conversation": "unknown-one",
            }
            methods = {each.template: set(each.methods) for each in resources if each.methods}
            yield Served(server.url, document, methods, opening, spare)
        finally:
            await server.stop()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """In a thread, since schemathesis waits for its answers."""
    ready: list[Served] = []
    begun, done = threading.Event(), threading.Event()

    async def serve() -> None:
        try:
            async with serving(tmp_path_factory.mktemp("openapi") / "data") as found:
                ready.append(found)
                begun.set()
                await asyncio.to_thread(done.wait)
        finally:
            begun.set()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    begun.wait()
    try:
        yield ready[0]
    finally:
        done.set()
        thread.join()


def documented(document: dict[str, Any]) -> dict[str, set[str]]:
    """Methods by path."""
    return {path: {method.upper() for method in there} for path, there in document["paths"].items()}


# What it says


def test_is_valid_openapi(served: Served) -> None:
    assert served.document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(served.document).validate()


def test_has_every_path_and_method_of_the_apis_and_invents_none(served: Served) -> None:
    """Of clients, bots, their authority and operators. `/` and `/docs` are for people. Below `/api/` there is
    only the answer that there is nothing. HEAD is as GET."""
    others = ("/", "/openapi.json", "/docs/api")
    ours = {
        path: methods - {"HEAD"}
        for path, methods in served.methods.items()
        if path not in others and not path.startswith("/api/")
    }
    rooms = {"/" + path.split("/")[1] for path in ours}
    assert {"/v3", connector.PREFIX, admin.PREFIX, "/{tenant}", "/discovery", "/live"} <= rooms
    assert documented(served.document) == ours


def test_has_an_error_body_and_an_example_for_every_error(served: Served) -> None:
    for path, there in served.document["paths"].items():
        for method, operation in there.items():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    content = answer["content"]["application/json"]
                    if not path.endswith("/oauth2/v2.0/token"):  # speaks the language of RFC 6749, too
                        assert content["schema"] == {"$ref": "#/components/schemas/Error"}
                    assert content["examples"], (path, method, status)


def test_examples_are_of_the_schemas_they_stand_beside(served: Served) -> None:
    seen = 0
    for content in contents(served.document["paths"]):
        schema = {**content["schema"], "components": served.document["components"]}
        for example in content["examples"].values():
            jsonschema_rs.validate(schema, example["value"])
            seen += 1
    assert seen > 50


def contents(node: Any) -> Iterator[dict[str, Any]]:
    """Every media type object below `node`."""
    if isinstance(node, dict):
        if "schema" in node and "examples" in node:
            yield node
        for each in node.values():
            yield from contents(each)


def test_names_no_operation_twice_and_says_what_each_does(served: Served) -> None:
    operations = [operation for there in served.document["paths"].values() for operation in there.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert all(operation["summary"] for operation in operations)
    assert not any(re.search(r"\(\d|\bbot \d", operation["summary"]) for operation in operations)


async def test_begins_where_clients_are_told_to_go(tmp_path: Path) -> None:
    server = Server(Settings(data=tmp_path / "data", port=0, public_url="https://chat.example.org/bots"))
    await server.start()
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{server.url}/openapi.json") as answer:
            assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
            assert json.loads(await answer.read())["servers"] == [{"url": "https://chat.example.org/bots"}]
    finally:
        await server.stop()


# What the server does


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as asked for", "wrong"])
def test_no_request_gets_an_answer_that_is_not_documented(served: Served, mode: GenerationMode) -> None:
    """Made up from the document: with credentials and ids that lead somewhere, and with whatever comes."""
    print(f"seed {SEED}")
    schema = schemathesis.openapi.from_dict(served.document)
    reached: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # hardly anything in it can be wrong
        if operation.path.startswith(admin.PREFIX):
            register_spares(served)
        statuses = reached[operation.label] = set()
        hold(served, operation.as_strategy(generation_mode=mode), statuses)
    if mode is GenerationMode.POSITIVE:
        # These need an upgrade, or an id that nobody can know beforehand.
        closed = (
            "/stream",
            "/stream/multimodal",
            "/{mark}",
            "/{kid}",
            "/redeliver",
            "/admin/conversations/{conversation}",
        )
        unreached = [
            label
            for label, statuses in reached.items()
            if not statuses & {200, 201, 204} and not label.endswith(closed)
        ]
        assert unreached == [], reached


def test_an_answer_that_is_not_documented_would_be_noticed(served: Served) -> None:
    """A document without the 404 of Get Activities, and one in which activity sets have another form."""
    read = ("/v3/directline/conversations/{conversation}/activities", "get")
    for forget in (
        lambda document: document["paths"][read[0]][read[1]]["responses"].pop("404"),
        lambda document: document["components"]["schemas"]["ActivitySet"]["required"].append("more"),
    ):
        document = json.loads(json.dumps(served.document))
        forget(document)
        cases = schemathesis.openapi.from_dict(document)[read[0]][read[1]].as_strategy()
        with pytest.raises(FailureGroup):
            hold(served, cases, set())


def register_spares(served: Served) -> None:
    """A bot and a site that operators may do anything with; they are there again after they were removed."""
    spares = {
        "bots": {"id": "spare", "app_id": "22222222-3333-4444-8555-666666666666"},
        "sites": {"id": "spare-site", "bot_id": "spare"},
    }
    headers = {"Authorization": f"Bearer {served.opening['admin']}"}
    for kind, properties in spares.items():
        requests.post(f"{served.url}{admin.PREFIX}/{kind}", json=properties, headers=headers, timeout=20)
    for kind, key in (("bots/spare/app-secrets", 1), ("sites/spare-site/secrets", 1)):
        requests.post(f"{served.url}{admin.PREFIX}/{kind}/{key}/rotate", headers=headers, timeout=20)


def hold(served: Served, cases: Any, statuses: set[int]) -> None:
    """Ask, and look at every answer: without a credential, with one, and with ids that exist too."""
    for opened in range(3):
        hold_opened(served, cases, statuses, opened)


def hold_opened(served: Served, cases: Any, statuses: set[int], opened: int) -> None:
    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(case=cases)
    def every_answer_is_documented(case: Any) -> None:
        headers = credentials(served, case, 0 if opened == 1 else -1) if opened else {}
        if opened == 2:
            of_admin = case.operation.path.startswith(admin.PREFIX)
            leading = served.opening | (served.spare if of_admin else {})
            form = case.body if of_admin or case.media_type == "application/x-www-form-urlencoded" else None
            for given in (
                case.path_parameters or {},
                case.query or {},
                case.headers or {},
                form if isinstance(form, dict) else {},
            ):
                for name in given.keys() & leading.keys():
                    given[name] = leading[name]
        answer = case.call(base_url=served.url, headers=headers)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=KEPT)

    every_answer_is_documented()


def credentials(served: Served, case: Any, which: int) -> dict[str, str]:
    """One of the kinds that open the operation; the secret is the first, the token the last."""
    kinds = [name for kind in case.operation.definition.raw.get("security", ()) for name in kind]
    return {"Authorization": f"Bearer {served.opening[kinds[which]]}"} if kinds else {}
