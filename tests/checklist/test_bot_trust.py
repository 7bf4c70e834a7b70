"""A bot with an app id and the server prove to each other who they are, and nobody else can (bot 5, 6; section 8,
20, 22 and 81 to 94).

The server of most tests has one bot, and a conversation of another one that it had before.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization

from landline.conformance.directline import Activity, DirectLine
from landline.conformance.scripted_bot import Answer, ScriptedBot
from landline.core.keys import SigningKey
from landline.server.connector import Connector
from landline.server.exchange import HttpRules
from support.bot_trust import (
    APP_ID,
    APP_SECRETS,
    CONNECTOR,
    ENVIRONMENT,
    SCOPE,
    Authority,
    Ear,
    claims,
    forged,
    new_key,
    with_keys_of,
)
from support.landline import SECRET, Landline
from support.operator import Operator

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGE = {"type": "message", "text": "hi"}
STRANGER = "99999999-0000-4000-8000-999999999999"


class Trust(NamedTuple):
    """A server with a bot that has an app id, and what is worth attacking."""

    landline: Landline
    other: Authority
    key: SigningKey
    """The server's own, as if somebody had stolen it."""
    foreign: str
    """A conversation of another bot."""

    @property
    def issuer(self) -> str:
        return self.landline.url

    def token(self, **changes: Any) -> str:
        """A token that this server might have signed."""
        return forged({"alg": "RS256", "kid": self.key.kid}, claims(**{"iss": self.issuer} | changes), self.key.private)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trust(tmp_path_factory: pytest.TempPathFactory, lasting_bot: ScriptedBot) -> AsyncIterator[Trust]:
    data = tmp_path_factory.mktemp("trust") / "data"
    former = Landline(data, bot=lasting_bot.endpoint, bot_id="before", drain_s=0)
    async with former, DirectLine(former.directline, SECRET) as client:
        foreign = (await client.start()).conversation_id
    (key,) = await with_keys_of(data)
    async with Authority() as other:
        server = Landline(
            data,
            bot=lasting_bot.endpoint,
            bot_app_id=APP_ID,
            trusted_issuers=other.setting,
            environment=ENVIRONMENT,
            drain_s=0,
        )
        async with server as landline:
            yield Trust(landline, other, key, foreign)


@pytest_asyncio.fixture(loop_scope="module")
async def client(trust: Trust, bot: ScriptedBot) -> AsyncIterator[DirectLine]:
    """A client with the secret of the server whose bot has an app id."""
    async with DirectLine(trust.landline.directline, SECRET) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def speak(
    bot: ScriptedBot, conversation_id: str, headers: dict[str, str], service_url: str | None = None
) -> Answer:
    """A connector call with these headers."""
    base = service_url or bot.service_url(conversation_id)
    return await bot.request(
        "POST", f"{base}/v3/conversations/{conversation_id}/activities", json=MESSAGE, headers=headers
    )


async def refused(bot: ScriptedBot, client: DirectLine, conversation_id: str, headers: dict[str, str]) -> Answer:
    """A connector call that must fail with an error object and leave nothing behind."""
    answer = await speak(bot, conversation_id, headers)
    assert answer.status >= 400, answer
    assert set(answer.json) == {"error"}, answer
    assert await client.all_activities(conversation_id) == []
    return answer


async def granted(bot: ScriptedBot, url: str, headers: dict[str, str] | None = None, **form: str) -> Answer:
    """A call of the token endpoint."""
    good = {"grant_type": "client_credentials", "client_id": APP_ID, "client_secret": APP_SECRETS[0], "scope": SCOPE}
    fields = {name: value for name, value in (good | form).items() if value != ""}
    return await bot.request("POST", url, data=fields, headers=headers)


async def public_keys(bot: ScriptedBot, landline: Landline) -> dict[str, dict[str, Any]]:
    """The published keys by name, found as a bot finds them: metadata first."""
    metadata = (await bot.request("GET", f"{landline.url}/v1/.well-known/openidconfiguration")).json
    found = (await bot.request("GET", metadata["jwks_uri"])).json["keys"]
    return {key["kid"]: key for key in found}


# Channel to bot


@pytest.mark.bot_item(82, 83)
async def test_the_bot_is_shown_a_token_that_says_exactly_what_it_has_to(
    trust: Trust, client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    assert (await client.send(conversation_id, "who are you?")).status == 200
    received = await bot.wait_for_text("who are you?")
    token = received.headers["Authorization"].removeprefix("Bearer ")
    header = jwt.get_unverified_header(token)
    keys = await public_keys(bot, trust.landline)
    assert header == {"alg": "RS256", "typ": "JWT", "kid": header["kid"], "x5t": header["kid"]}
    said = jwt.decode(
        token,
        jwt.PyJWK(keys[header["kid"]]).key,
        algorithms=["RS256"],
        audience=APP_ID,
        issuer=trust.issuer,
        options={"require": ["exp", "nbf", "iss", "aud"]},
    )
    assert set(said) == {"iss", "aud", "serviceurl", "jti", "nbf", "exp"}, "not ver, appid, azp or tid"
    assert said["aud"] == APP_ID, "a string"
    assert said["serviceurl"] == received.activity["serviceUrl"] == f"{bot.service_url(conversation_id)}/"
    assert 3500 < said["exp"] - time.time() <= 3600
    assert 5 <= time.time() - said["nbf"] < 60


async def test_a_token_is_made_once_and_shown_many_times(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    other = (await client.start()).conversation_id
    for conversation in (conversation_id, other, conversation_id):
        assert (await client.send(conversation, "again")).status == 200
    shown = {each.headers["Authorization"] for each in bot.messages if each.text == "again"}
    assert len(shown) == 1


@pytest.mark.bot_item(20)
@pytest.mark.parametrize("status", [401, 403])
async def test_a_bot_that_refuses_a_token_is_shown_one_fresh_token(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, status: int
) -> None:
    text = f"refused once with {status}"

    async def refuse_once(bot: ScriptedBot, activity: Activity) -> None:
        seen = [each for each in bot.messages if each.text == text]
        bot.answer(status if len(seen) == 1 else 200)

    bot.on_activity = refuse_once
    assert (await client.send(conversation_id, text)).status == 200
    first, second = (each for each in bot.messages if each.text == text)
    assert first.activity == second.activity
    assert first.headers["Authorization"] != second.headers["Authorization"]
    # The fresh one is kept.
    assert (await client.send(conversation_id, f"after {text}")).status == 200
    kept = await bot.wait_for_text(f"after {text}")
    assert kept.headers["Authorization"] == second.headers["Authorization"]


@pytest.mark.bot_item(20, 27)
async def test_a_bot_that_refuses_every_token_is_asked_twice_and_an_invoke_once(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    bot.answer(401)
    assert (await client.send(conversation_id, "no entry")).error == (502, "BotRejectedActivity")
    tokens = [each.headers["Authorization"] for each in bot.messages if each.text == "no entry"]
    assert len(tokens) == len(set(tokens)) == 2
    invoke = {"type": "invoke", "name": "x/y", "from": {"id": "user"}}
    assert (await client.send(conversation_id, invoke)).error == (502, "BotRejectedActivity")
    assert len([each for each in bot.received if each.type == "invoke"]) == 1


@pytest.mark.bot_item(22)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_carries_no_token_to_another_host(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, status: int
) -> None:
    async with Ear() as ear:
        bot.answer(status, headers={"Location": f"{ear.url}/api/messages"})
        assert (await client.send(conversation_id, "follow me")).error == (502, "BotRejectedActivity")
        assert ear.heard == 0


async def test_a_server_that_may_call_other_hosts_only_does_not_start(tmp_path: Path, bot: ScriptedBot) -> None:
    """And one whose bot is on an allowed host does, and talks to it."""
    with pytest.raises(AssertionError, match="exited with 2"):
        await Landline(tmp_path / "data", bot=bot.endpoint, bot_allowed_hosts="bot.internal").start()
    allowed = Landline(tmp_path / "data", bot=bot.endpoint, bot_allowed_hosts="*.internal,127.0.0.1", drain_s=0)
    async with allowed, DirectLine(allowed.directline, SECRET) as client:
        opened = await client.start()
        assert (await client.send(opened.conversation_id, "allowed")).status == 200


async def test_a_bot_that_was_added_before_hosts_were_limited_is_called_no_more(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """Nor is it told anything by the way: the first thing that it hears is what is sent when it is allowed again."""
    server = Landline(tmp_path / "data", drain_s=0)
    async with server as landline:
        async with Operator(landline) as operator:
            await operator.add_bot("added", bot.endpoint)
            secret = await operator.add_site("site", "added")
        for hosts, status in (("bot.internal,*.example.org", 502), ("127.0.0.1", 200)):
            await landline.terminate()
            landline.settings["bot_allowed_hosts"] = hosts
            await landline.start()
            async with DirectLine(landline.directline, secret) as client:
                opened = await client.start(user={"id": "user"})
                answer = await client.send(opened.conversation_id, hosts)
                assert answer.status == status
                if status == 502:
                    assert answer.error == (502, "BotError")
                    assert "host is not allowed" in answer.json["error"]["message"]
                    assert bot.heard(opened.conversation_id) == []
        assert bot.heard(opened.conversation_id)[-1]["text"] == "127.0.0.1"


# Metadata and keys


@pytest.mark.bot_item(84)
async def test_metadata_and_keys_are_public_and_can_be_cached(trust: Trust, bot: ScriptedBot) -> None:
    metadata = await bot.request("GET", f"{trust.landline.url}/v1/.well-known/openidconfiguration")
    assert metadata.status == 200
    assert metadata.json["issuer"] == trust.issuer
    assert metadata.json["id_token_signing_alg_values_supported"] == ["RS256"]
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        assert metadata.json[name].startswith(trust.landline.url + "/"), name
    answer = await bot.request("GET", metadata.json["jwks_uri"])
    for each in (metadata, answer):
        assert each.headers["Cache-Control"] == "public, max-age=3600"
        assert each.headers["Content-Type"].startswith("application/json")
    keys = answer.json["keys"]
    assert keys
    for key in keys:
        assert {"kty", "kid", "n", "e", "endorsements"} <= set(key)
        assert (key["kty"], key["use"], key["alg"], key["x5t"]) == ("RSA", "sig", "RS256", key["kid"])
        assert "directline" in key["endorsements"]
        assert not {"d", "p", "q", "dp", "dq", "qi"} & set(key), "a private half"


@pytest.mark.bot_item(84)
async def test_a_bot_that_is_told_another_channel_finds_it_endorsed(tmp_path: Path, bot: ScriptedBot) -> None:
    server = Landline(tmp_path / "data", bot=bot.endpoint, bot_channel_id="emulator", drain_s=0)
    async with server as landline:
        for key in (await public_keys(bot, landline)).values():
            assert key["endorsements"] == ["directline", "emulator", "webchat"]


@pytest.mark.bot_item(85, 86)
async def test_keys_survive_a_kill_and_a_new_one_is_shown_long_before_it_signs(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """Item 85 for one node. The 25 hours themselves pass in tests/channel/test_keys.py."""
    server = Landline(tmp_path / "data", bot=bot.endpoint, bot_app_id=APP_ID, environment=ENVIRONMENT, drain_s=0)
    async with server as landline, DirectLine(landline.directline, SECRET) as client:
        before = await public_keys(bot, landline)
        token = (await granted(bot, f"{landline.url}/oauth2/v2.0/token")).json["access_token"]
        await landline.restart(kill=True)
        assert await public_keys(bot, landline) == before
        await landline.terminate()
        old, new = await with_keys_of(landline.data, rotate=True)
        await landline.start()
        assert set(await public_keys(bot, landline)) == {old.kid, new.kid}
        assert new.signs_from_ms / 1000 - time.time() > 24.9 * 3600
        # Signed with the old one still, in both directions; what was signed before the restart is good.
        conversation_id = (await client.start()).conversation_id
        received = await bot.wait_for(lambda each: each.conversation_id == conversation_id)
        shown = received.headers["Authorization"].removeprefix("Bearer ")
        assert jwt.get_unverified_header(shown)["kid"] == old.kid
        again = (await granted(bot, f"{landline.url}/oauth2/v2.0/token")).json["access_token"]
        assert jwt.get_unverified_header(again)["kid"] == old.kid
        assert (await speak(bot, conversation_id, bearer(token))).status == 200


@pytest.mark.bot_item(85, 90)
async def test_a_key_that_was_withdrawn_opens_nothing_and_is_shown_to_nobody(tmp_path: Path, bot: ScriptedBot) -> None:
    """Whoever has it speaks neither as the bot nor as the channel, from the moment of the answer on, and ever after."""
    server = Landline(tmp_path / "data", bot=bot.endpoint, bot_app_id=APP_ID, environment=ENVIRONMENT, drain_s=0)
    async with (
        server as landline,
        DirectLine(landline.directline, SECRET) as client,
        Operator(landline) as operator,
    ):
        conversation_id = (await client.start()).conversation_id
        await bot.wait_for(lambda each: each.conversation_id == conversation_id)
        (leaked,) = await public_keys(bot, landline)
        url = f"{landline.url}/oauth2/v2.0/token"
        token = (await granted(bot, url)).json["access_token"]
        assert (await speak(bot, conversation_id, bearer(token))).status == 200
        left = (await operator.done("DELETE", f"/signing-keys/{leaked}"))["signing_keys"]
        assert leaked not in {key["kid"] for key in left}
        assert (await speak(bot, conversation_id, bearer(token))).status == 401
        assert (await operator.call("DELETE", f"/signing-keys/{leaked}")).status == 404
        for restarted in (False, True):
            if restarted:
                await landline.restart(kill=True)
            (key,) = await public_keys(bot, landline)
            assert key == left[0]["kid"]
            assert (await speak(bot, conversation_id, bearer(token))).status == 401
            text = f"who are you now? {restarted}"
            assert (await client.send(conversation_id, text)).status == 200
            shown = (await bot.wait_for_text(text)).headers["Authorization"].removeprefix("Bearer ")
            assert jwt.get_unverified_header(shown)["kid"] == key
            fresh = (await granted(bot, url)).json["access_token"]
            assert (await speak(bot, conversation_id, bearer(fresh))).status == 200
        assert len(await client.all_activities(conversation_id)) == 5


# The token endpoint


@pytest.mark.bot_item(87)
@pytest.mark.parametrize("secret", APP_SECRETS)
async def test_each_of_two_secrets_gets_a_token_that_opens_the_connector(
    trust: Trust, client: DirectLine, bot: ScriptedBot, conversation_id: str, secret: str
) -> None:
    answer = await granted(bot, f"{trust.landline.url}/oauth2/v2.0/token", client_secret=secret)
    assert answer.status == 200, answer
    token = answer.json.pop("access_token")
    assert answer.json == {"token_type": "Bearer", "expires_in": 3600, "ext_expires_in": 3600}
    assert answer.headers["Cache-Control"] == "no-store"
    said = jwt.decode(token, options={"verify_signature": False})
    assert (said["iss"], said["aud"], said["appid"], said["azp"]) == (trust.issuer, CONNECTOR, APP_ID, APP_ID)
    assert (await speak(bot, conversation_id, bearer(token))).status == 200
    assert len(await client.all_activities(conversation_id)) == 1


@pytest.mark.bot_item(87)
@pytest.mark.parametrize(
    "form",
    [
        {"client_secret": "wrong"},
        {"client_secret": APP_SECRETS[0][:-1]},
        {"client_secret": APP_SECRETS[0] + "x"},
        {"client_secret": ",".join(APP_SECRETS)},
        {"client_secret": SECRET},
        {"client_secret": ""},
        {"client_secret": "\U0001f600\x00"},
        {"client_id": STRANGER},
        {"client_id": ""},
        {"client_id": "bot"},
    ],
    ids=str,
)
async def test_wrong_credentials_are_401_invalid_client(trust: Trust, bot: ScriptedBot, form: dict[str, str]) -> None:
    answer = await granted(bot, f"{trust.landline.url}/oauth2/v2.0/token", **form)
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")
    assert answer.json["error_description"]
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.bot_item(87)
async def test_a_client_may_authenticate_by_basic(trust: Trust, bot: ScriptedBot) -> None:
    url = f"{trust.landline.url}/oauth2/v2.0/token"

    async def ask(credentials: str, **form: str) -> Answer:
        header = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}
        return await granted(bot, url, header, **({"client_id": "", "client_secret": ""} | form))

    assert (await ask(f"{quote_plus(APP_ID)}:{quote_plus(APP_SECRETS[1])}")).status == 200
    assert (await ask(f"{APP_ID}:{APP_SECRETS[1]}", client_id=APP_ID)).status == 200
    wrong = await ask(f"{APP_ID}:wrong")
    assert (wrong.status, wrong.json["error"]) == (401, "invalid_client")
    assert wrong.headers["WWW-Authenticate"].startswith("Basic")
    twice = await ask(f"{APP_ID}:{APP_SECRETS[1]}", client_secret=APP_SECRETS[1])
    assert (twice.status, twice.json["error"]) == (400, "invalid_request")
    garbage = await granted(bot, url, {"Authorization": "Basic %%%"}, client_secret="")
    assert (garbage.status, garbage.json["error"]) == (401, "invalid_client")
    assert garbage.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "invalid_request"),
        ({"scope": f"{STRANGER}/.default"}, "invalid_scope"),
        ({"scope": f"{APP_ID}/.default"}, "invalid_scope"),
        ({"scope": "https://graph.microsoft.com/.default"}, "invalid_scope"),
    ],
    ids=str,
)
async def test_what_the_endpoint_does_not_give_is_400(
    trust: Trust, bot: ScriptedBot, form: dict[str, str], error: str
) -> None:
    """Above all no token for another audience: it would make one bot the channel of another."""
    answer = await granted(bot, f"{trust.landline.url}/oauth2/v2.0/token", **form)
    assert (answer.status, answer.json["error"]) == (400, error)


async def test_what_is_no_form_is_400_and_a_form_over_64_kib_413(trust: Trust, bot: ScriptedBot) -> None:
    url = f"{trust.landline.url}/oauth2/v2.0/token"
    form_type = {"Content-Type": "application/x-www-form-urlencoded"}
    for body, headers in (
        (b"{}", {"Content-Type": "application/json"}),
        (b"client_id=\xff", form_type),
        (b"&".join(b"a=1" for _ in range(100)), form_type),
        (b"client_id=a&client_id=b", form_type),
    ):
        answer = await bot.request("POST", url, data=body, headers=headers)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request"), body
    large = await bot.request("POST", url, data=b"a=" + b"x" * 65_536, headers=form_type)
    assert large.status == 413
    assert (await bot.request("GET", url)).status == 405


@pytest.mark.bot_item(88)
@pytest.mark.parametrize("authority", ["", "/adfs", "/contoso.example", f"/{STRANGER}"])
async def test_an_authority_is_whole_wherever_sdks_look_for_it(trust: Trust, bot: ScriptedBot, authority: str) -> None:
    base = trust.landline.url + authority
    for path in ("/.well-known/openid-configuration", "/v2.0/.well-known/openid-configuration"):
        document = (await bot.request("GET", base + path)).json
        assert document["issuer"] == trust.issuer
        assert document["token_endpoint"] == f"{base}/oauth2/v2.0/token"
        assert document["jwks_uri"] == f"{base}/discovery/v2.0/keys"
        assert document["authorization_endpoint"].startswith(base)
        assert document["end_session_endpoint"].startswith(base)
        answer = await granted(bot, document["token_endpoint"])
        kid = jwt.get_unverified_header(answer.json["access_token"])["kid"]
        keys = (await bot.request("GET", document["jwks_uri"])).json["keys"]
        assert kid in {key["kid"] for key in keys}


async def test_an_authority_has_a_plain_name_and_addresses_come_from_no_request(trust: Trust, bot: ScriptedBot) -> None:
    for name in ("a%22b", "a%2Fb", "x" * 100, "%3Cscript%3E"):
        answer = await bot.request("GET", f"{trust.landline.url}/{name}/.well-known/openid-configuration")
        assert answer.status == 404, name
    evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    document = await bot.request("GET", f"{trust.landline.url}/v1/.well-known/openidconfiguration", headers=evil)
    assert "evil.example" not in json.dumps(document.json)


async def test_an_authority_behind_a_path_prefix_is_found_with_and_without_it(tmp_path: Path, bot: ScriptedBot) -> None:
    landline = Landline(
        tmp_path / "data",
        bot=bot.endpoint,
        bot_app_id=APP_ID,
        environment=ENVIRONMENT,
        service_url="https://landline.example/of/bots",
        drain_s=0,
    )
    async with landline:
        for prefix in ("/of/bots", ""):
            for authority in ("", "/adfs", "/tenant"):
                url = f"{landline.url}{prefix}{authority}/.well-known/openid-configuration"
                document = (await bot.request("GET", url)).json
                expected = f"https://landline.example/of/bots{authority}/oauth2/v2.0/token"
                assert document["token_endpoint"] == expected
                local = f"{landline.url}{prefix}{authority}/oauth2/v2.0/token"
                assert (await granted(bot, local)).status == 200, local


@pytest.mark.bot_item(89)
async def test_what_sdks_add_to_a_token_request_is_ignored(trust: Trust, bot: ScriptedBot) -> None:
    url = f"{trust.landline.url}/adfs/oauth2/v2.0/token?client-request-id=1&{urlencode({'client_secret': 'wrong'})}"
    extras = {"client_info": "1", "claims": '{"access_token":{}}', "x-client-sku": "MSAL.Python", "resource": "x"}
    assert (await granted(bot, url, **extras)).status == 200
    # Nor is it looked at: how much there is of it, whether it says the same twice, or whether it is text.
    good = {"grant_type": "client_credentials", "client_id": APP_ID, "client_secret": APP_SECRETS[0], "scope": SCOPE}
    more = "".join(f"&extra-{number}={number}" for number in range(200)) + "&resource=x&resource=y&z=%ff&%fe=\xff&&="
    answer = await bot.request(
        "POST",
        url,
        data=(urlencode(good) + more).encode("latin-1"),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert (answer.status, answer.json["token_type"]) == (200, "Bearer")


# Bot to channel


ATTACKS = (
    "nothing",
    "an empty token",
    "another scheme",
    "garbage",
    "a client's secret",
    "a client's token",
    "what the channel shows to the bot",
    "expired",
    "not valid yet",
    "without an end",
    "another audience",
    "our bot as audience",
    "no audience",
    "another issuer",
    "no issuer",
    "another key",
    "another key under our name",
    "no key named",
    "no app",
    "two apps",
    "alg none",
    "alg None",
    "HMAC with the public key, PEM",
    "HMAC with the public key, DER",
    "HMAC with the key set",
    "HMAC with nothing",
    "a header to be understood",
    "another signature",
    "a changed last character",
    "changed claims",
    "a trusted issuer's name on our key",
    "our name on a trusted issuer's key",
    "of a trusted issuer, expired",
    "of a trusted issuer, for another audience",
    "of a trusted issuer, with another key",
)


async def attack(trust: Trust, client: DirectLine, bot: ScriptedBot, conversation_id: str, what: str) -> str:
    """The Authorization header of an attack."""
    public = trust.key.private.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    good = trust.token()
    ours, ours_hmac = {"alg": "RS256", "kid": trust.key.kid}, {"alg": "HS256", "kid": trust.key.kid}
    said = claims(iss=trust.issuer)
    now = int(time.time())
    head, body, signature = good.split(".")
    other_said = base64.urlsafe_b64encode(json.dumps({**said, "x": 1}).encode()).rstrip(b"=").decode()
    match what:
        case "nothing":
            return ""
        case "an empty token":
            return "Bearer "
        case "another scheme":
            return "Basic " + base64.b64encode(f"{APP_ID}:{APP_SECRETS[0]}".encode()).decode()
        case "garbage":
            return "Bearer a.b.c"
        case "a client's secret":
            return f"Bearer {SECRET}"
        case "a client's token":
            return f"Bearer {(await client.generate()).token}"
        case "what the channel shows to the bot":
            return bot.received[-1].headers["Authorization"]
    token = {
        "expired": lambda: trust.token(exp=now - 301),
        "not valid yet": lambda: trust.token(nbf=now + 310),
        "without an end": lambda: trust.token(exp=None),
        "another audience": lambda: trust.token(aud="https://graph.microsoft.com"),
        "our bot as audience": lambda: trust.token(aud=APP_ID),
        "no audience": lambda: trust.token(aud=None),
        "another issuer": lambda: trust.token(iss="https://elsewhere.example"),
        "no issuer": lambda: trust.token(iss=None),
        "another key": lambda: forged({"alg": "RS256", "kid": "another"}, said, new_key()),
        "another key under our name": lambda: forged(ours, said, new_key()),
        "no key named": lambda: forged({"alg": "RS256"}, said, trust.key.private),
        "no app": lambda: trust.token(appid=None, azp=None),
        "two apps": lambda: trust.token(azp=STRANGER),
        "alg none": lambda: forged({**ours, "alg": "none"}, said),
        "alg None": lambda: forged({**ours, "alg": "None"}, said),
        "HMAC with the public key, PEM": lambda: forged(ours_hmac, said, pem),
        "HMAC with the public key, DER": lambda: forged(ours_hmac, said, der),
        "HMAC with the key set": lambda: forged(ours_hmac, said, trust.key.kid.encode()),
        "HMAC with nothing": lambda: forged(ours_hmac, said, b""),
        "a header to be understood": lambda: forged({**ours, "crit": ["b64"], "b64": True}, said, trust.key.private),
        "another signature": lambda: f"{head}.{body}.{trust.token(jti='x').split('.')[2]}",
        "a changed last character": lambda: good[:-1] + next(c for c in "ABCDEFGH" if c != good[-1]),
        "changed claims": lambda: f"{head}.{other_said}.{signature}",
        "a trusted issuer's name on our key": lambda: trust.token(iss=trust.other.issuer),
        "our name on a trusted issuer's key": lambda: trust.other.token(iss=trust.issuer),
        "of a trusted issuer, expired": lambda: trust.other.token(exp=now - 301),
        "of a trusted issuer, for another audience": lambda: trust.other.token(aud=[STRANGER, "x"]),
        "of a trusted issuer, with another key": lambda: forged(
            {"alg": "RS256", "kid": trust.other.key.kid}, claims(iss=trust.other.issuer), new_key()
        ),
    }[what]()
    return f"Bearer {token}"


@pytest.mark.bot_item(90, 92)
@pytest.mark.parametrize("what", ATTACKS)
async def test_a_call_without_a_good_token_is_401_and_changes_nothing(
    trust: Trust, client: DirectLine, bot: ScriptedBot, conversation_id: str, what: str
) -> None:
    header = await attack(trust, client, bot, conversation_id, what)
    answer = await refused(bot, client, conversation_id, {"Authorization": header} if header else {})
    assert (answer.status, answer.json["error"]["code"]) == (401, "BadArgument"), answer
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.bot_item(90)
async def test_no_operation_of_the_connector_is_without_a_check(
    trust: Trust, client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    """Every route that the connector has, with every method, whatever will be added to it."""
    base, _, key = bot.service_url(conversation_id).rpartition("/b/")
    nothing: Any = None
    templates = [route.path for route in Connector(*[nothing] * 6, HttpRules(1, 1)).routes()]
    assert len(templates) > 3
    refused = set()
    for template in templates:
        path = template.replace("{key}", key).replace("{conversation}", conversation_id)
        url = base + re.sub(r"{\w+}", "x", path)
        for method in ("GET", "POST", "PUT", "DELETE"):
            for headers in ({}, bearer(trust.token(exp=1)), bearer("x")):
                answer = await bot.request(method, url, json={"type": "message"}, headers=headers)
                assert answer.status in (401, 405), (method, template)
                if answer.status == 401:
                    refused.add((method, template))
    assert {template for _, template in refused} == set(templates)
    assert await client.all_activities(conversation_id) == []


async def test_the_attacks_fail_for_the_reason_that_they_name(
    trust: Trust, client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    """The same tokens without the fault are good: clocks may differ by five minutes, and a trusted issuer is one."""
    now = int(time.time())
    for token in (
        trust.token(),
        trust.token(exp=now - 280),
        trust.token(nbf=now + 280),
        trust.token(azp=None),
        trust.token(appid=None),
        trust.other.token(),
        trust.other.token(aud=["x", CONNECTOR]),
        trust.other.token(aud=APP_ID),
    ):
        for _ in range(2):  # from the cache, too
            assert (await speak(bot, conversation_id, bearer(token))).status == 200, token
    assert trust.other.asked == ["/keys"], "asked once for all tokens"


@pytest.mark.bot_item(91)
async def test_a_valid_token_of_another_bot_is_403_and_changes_nothing(
    trust: Trust, client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    for token in (trust.token(appid=STRANGER, azp=STRANGER), trust.other.token(appid=STRANGER, azp=STRANGER)):
        for _ in range(2):
            answer = await refused(bot, client, conversation_id, bearer(token))
            assert (answer.status, answer.json["error"]["code"]) == (403, "BadArgument")


@pytest.mark.bot_item(91, 93)
async def test_a_bot_with_its_own_token_gets_403_for_the_conversation_of_another_bot(
    trust: Trust, client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    service_url = bot.service_url(conversation_id)
    answer = await speak(bot, trust.foreign, bearer(trust.token()), service_url)
    assert answer.status == 403
    unknown = await speak(bot, "unknown-conversation", bearer(trust.token()), service_url)
    assert unknown.status == 404
    anonymous = await speak(bot, trust.foreign, {}, service_url)
    assert anonymous.status == 401, "who has not proven anything learns nothing"
    # A server whose bot is the other one finds nothing in it.
    assert bot.heard(trust.foreign)[-1]["type"] == "conversationUpdate"


@pytest.mark.bot_item(93)
async def test_a_good_token_opens_nothing_without_the_key_path(
    trust: Trust, client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    base, _, key = bot.service_url(conversation_id).rpartition("/b/")
    for wrong in (base, f"{base}/b", f"{base}/b/{key[::-1]}", f"{base}/b/{key}x"):
        answer = await speak(bot, conversation_id, bearer(trust.token()), wrong)
        assert answer.status == 404, wrong
    assert await client.all_activities(conversation_id) == []


@pytest.mark.bot_item(93)
async def test_the_key_path_of_an_anonymous_bot_leads_to_no_conversation_of_another(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """404: it has proven nothing, so the conversation does not exist for it. A token changes nothing about that."""
    server = Landline(tmp_path / "data", bot=bot.endpoint, bot_id="one", drain_s=0)
    async with server as landline, DirectLine(landline.directline, SECRET) as client:
        of_one = (await client.start()).conversation_id
        await bot.wait_for(lambda each: each.conversation_id == of_one)
        await landline.terminate()
        landline.settings["bot_id"] = "two"
        await landline.start()
        of_two = (await client.start()).conversation_id
        await bot.wait_for(lambda each: each.conversation_id == of_two)
        for headers in ({}, bearer("anything")):
            assert (await speak(bot, of_one, headers, bot.service_url(of_two))).status == 404
            assert (await speak(bot, of_one, headers, bot.service_url(of_one))).status == 404, "nobody's key by now"
            assert (await speak(bot, of_two, headers)).status == 200
        await landline.terminate()
        landline.settings["bot_id"] = "one"
        await landline.start()
        assert await client.all_activities(of_one) == []


@pytest.mark.bot_item(91, 93)
async def test_of_three_bots_in_one_server_none_can_be_another(tmp_path: Path, bot: ScriptedBot) -> None:
    """Two with an app id, one anonymous, each with a conversation: every key path with every token on every one."""
    server = Landline(tmp_path / "data", drain_s=0)
    async with server as landline, Operator(landline) as operator, DirectLine(landline.directline) as nobody:
        conversations, urls, tokens, clients = {}, {}, {"nobody's": None}, {}
        for name, app_id in (("one", APP_ID), ("two", STRANGER), ("three", None)):
            await operator.add_bot(name, bot.endpoint, app_id=app_id)
            clients[name] = nobody.using(await operator.add_site(f"site-{name}", name))
            conversations[name] = (await clients[name].start()).conversation_id
            await bot.wait_for(lambda each, name=name: each.conversation_id == conversations[name])
            urls[name] = bot.service_url(conversations[name])
            if app_id is not None:
                secret = (await operator.done("POST", f"/bots/{name}/app-secrets/1/rotate"))["secret"]
                url = f"{landline.url}/oauth2/v2.0/token"
                tokens[name] = (await granted(bot, url, client_id=app_id, client_secret=secret)).json["access_token"]
        expected = {}
        for path, shown, conversation in itertools.product(urls, tokens, conversations):
            headers = {} if tokens[shown] is None else bearer(tokens[shown])
            answer = await speak(bot, conversations[conversation], headers, urls[path])
            if path == "three":
                status = 200 if conversation == "three" else 404
            elif shown == "nobody's":
                status = 401
            else:
                status = 200 if path == shown == conversation else 403
            assert answer.status == status, (path, shown, conversation)
            expected[conversation] = expected.get(conversation, 0) + (status == 200)
        for name, conversation_id in conversations.items():
            assert len(await clients[name].all_activities(conversation_id)) == expected[name], name
        assert expected == {"one": 1, "two": 1, "three": len(tokens)}


@pytest.mark.bot_item(90)
async def test_a_bot_trusts_the_issuers_that_it_names_and_else_those_of_the_server(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    async with Authority() as first, Authority() as second:
        server = Landline(tmp_path / "data", trusted_issuers=first.setting, issuer_keys_s=0.05, drain_s=0)
        async with server as landline, Operator(landline) as operator, DirectLine(landline.directline) as nobody:
            elsewhere = f"https://second.example={second.url}"
            of_first, of_second = first.token(), second.token(iss="https://second.example")

            async def heard(trusted: list[str] | None) -> tuple[int, int]:
                """How the bot's calls with a token of each issuer are answered."""
                await operator.done("PATCH", "/bots/one", {"trusted_issuers": trusted})
                answers = [await speak(bot, conversation_id, bearer(each), url) for each in (of_first, of_second)]
                return answers[0].status, answers[1].status

            await operator.add_bot("one", bot.endpoint, app_id=APP_ID)
            client = nobody.using(await operator.add_site("site-one", "one"))
            conversation_id = (await client.start()).conversation_id
            await bot.wait_for(lambda each: each.conversation_id == conversation_id)
            url = bot.service_url(conversation_id)
            assert await heard(None) == (200, 401)
            assert await heard([elsewhere]) == (401, 200)
            assert await heard([first.setting, elsewhere]) == (200, 200)
            assert await heard([]) == (401, 401)
            assert (await operator.done("GET", "/bots/one"))["trusted_issuers"] == []
            for wrong in ("x", ["x"], [elsewhere, elsewhere], ["a=http://a.example/keys"]):
                assert (await operator.call("PATCH", "/bots/one", {"trusted_issuers": wrong})).status == 400
            # An issuer takes its key back: what the bot shows was good, and is kept, and is good no longer.
            assert await heard(None) == (200, 401)
            first.document = {"keys": []}
            deadline = time.monotonic() + 10
            while (await speak(bot, conversation_id, bearer(of_first), url)).status != 401:
                assert time.monotonic() < deadline


@pytest.mark.bot_item(69, 70, 71)
async def test_a_bot_that_has_proven_who_it_is_starts_conversations_and_lists_its_own(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """With the same call without the token, and by a bot that may not, nothing is started."""
    async with Landline(tmp_path / "data", drain_s=0) as landline, Operator(landline) as operator:
        await operator.add_bot("one", bot.endpoint, app_id=APP_ID, create_conversations=True)
        secret = (await operator.done("POST", "/bots/one/app-secrets/1/rotate"))["secret"]
        url = f"{landline.url}/oauth2/v2.0/token"
        token = (await granted(bot, url, client_secret=secret)).json["access_token"]
        async with DirectLine(landline.directline, await operator.add_site("site", "one")) as client:
            first = (await client.start()).conversation_id
            await bot.wait_for(lambda each: each.conversation_id == first)
            base = f"{bot.service_url(first)}/v3/conversations"
            asked = {"bot": {"id": "one"}, "members": [{"id": "user"}], "activity": MESSAGE}
            for method in ("GET", "POST"):
                assert (await bot.request(method, base, json=asked)).status == 401
            begun = await bot.request("POST", base, json=asked, headers=bearer(token))
            assert begun.status == 201, begun
            assert begun.json["serviceUrl"] == f"{bot.service_url(first)}/"
            assert (await speak(bot, begun.json["id"], bearer(token), bot.service_url(first))).status == 200
            listed = (await bot.request("GET", base, headers=bearer(token))).json["conversations"]
            assert {each["id"] for each in listed} == {first, begun.json["id"]}
            await client.reconnect(begun.json["id"])
            assert [each["text"] for each in await client.all_activities(begun.json["id"])] == ["hi", "hi"]
            await operator.done("PATCH", "/bots/one", {"create_conversations": False})
            assert (await bot.request("POST", base, json=asked, headers=bearer(token))).status == 403


@pytest.mark.bot_item(43)
async def test_a_start_that_is_repeated_comes_to_the_same_conversation(tmp_path: Path, bot: ScriptedBot) -> None:
    """Also at the same time, and after a kill. The SDK that repeats a call does so with the same header (fact 2)."""
    async with Landline(tmp_path / "data", drain_s=0) as landline, Operator(landline) as operator:
        await operator.add_bot("one", bot.endpoint, app_id=APP_ID, create_conversations=True)
        secret = (await operator.done("POST", "/bots/one/app-secrets/1/rotate"))["secret"]
        url = f"{landline.url}/oauth2/v2.0/token"
        token = (await granted(bot, url, client_secret=secret)).json["access_token"]
        async with DirectLine(landline.directline, await operator.add_site("site", "one")) as client:
            first = (await client.start()).conversation_id
            await bot.wait_for(lambda each: each.conversation_id == first)
            base = f"{bot.service_url(first)}/v3/conversations"

            async def begin(request_id: str | None, *users: str) -> Any:
                headers = bearer(token) | ({"x-ms-client-request-id": request_id} if request_id else {})
                asked = {"members": [{"id": user} for user in users], "activity": MESSAGE}
                answer = await bot.request("POST", base, json=asked, headers=headers)
                assert answer.status == 201, answer
                return answer.json

            begun, *repeats = await asyncio.gather(*(begin("request-1", "ann", "bob") for _ in range(5)))
            await landline.restart(kill=True)
            assert all(each == begun for each in (*repeats, await begin("request-1", "ann", "bob")))
            assert re.fullmatch(r"[A-Za-z0-9_-]{22}", begun["id"])
            assert begun["activityId"] == f"{begun['id']}|0000000"
            await client.reconnect(begun["id"])
            assert [each["text"] for each in await client.all_activities(begun["id"])] == ["hi"]
            others = [
                await begin("request-2", "ann", "bob"),
                await begin("request-1", "ann"),
                await begin(None, "ann", "bob"),
                await begin(None, "ann", "bob"),
            ]
            assert len({begun["id"], *(each["id"] for each in others)}) == 5
            listed = (await bot.request("GET", base, headers=bearer(token))).json["conversations"]
            assert [each["id"] for each in listed] == [first, begun["id"], *(each["id"] for each in others)]


@pytest.mark.bot_item(87)
async def test_a_secret_that_was_exchanged_gets_no_token(tmp_path: Path, bot: ScriptedBot) -> None:
    async with Landline(tmp_path / "data", drain_s=0) as landline, Operator(landline) as operator:
        await operator.add_bot("one", bot.endpoint, app_id=APP_ID)
        url = f"{landline.url}/oauth2/v2.0/token"
        first, second = [
            (await operator.done("POST", f"/bots/one/app-secrets/{key}/rotate"))["secret"] for key in (1, 2)
        ]
        newer = (await operator.done("POST", "/bots/one/app-secrets/1/rotate"))["secret"]
        answers = {secret: (await granted(bot, url, client_secret=secret)).status for secret in (first, second, newer)}
        assert list(answers.values()) == [401, 200, 200]
        await operator.done("DELETE", "/bots/one/app-secrets/2")
        assert (await granted(bot, url, client_secret=second)).status == 401
        await landline.restart(kill=True)
        assert (await granted(bot, url, client_secret=newer)).status == 200
        await operator.done("DELETE", "/bots/one")
        assert (await granted(bot, url, client_secret=newer)).status == 401
        await operator.add_bot("one", bot.endpoint, app_id=APP_ID)
        assert (await granted(bot, url, client_secret=newer)).status == 401, "it belonged to the former one"


async def test_a_chat_user_who_knows_the_conversation_cannot_speak_as_the_bot(
    trust: Trust, client: DirectLine, bot: ScriptedBot
) -> None:
    """The user has a token of that conversation, and knows every address but the one with the key in it; even with it
    only the bot's own token would help."""
    user = client.using((await client.generate(user={"id": "dl_user"})).token)
    opened = await user.start()
    conversation_id = opened.conversation_id
    await bot.wait_for(lambda each: each.conversation_id == conversation_id)
    base, service_url = trust.landline.url, bot.service_url(conversation_id)
    credentials = [{}, bearer(opened.token), bearer(SECRET)]
    for headers in credentials:
        for guess in (base, f"{base}/b", f"{base}/b/bot", f"{base}/b/{APP_ID}", f"{base}/v3/directline"):
            answer = await speak(bot, conversation_id, headers, guess)
            assert answer.status in (403, 404), guess
        assert (await speak(bot, conversation_id, headers, service_url)).status == 401
    # Nor by sending: a token without a user may claim any name but the bot's.
    for speaker in (user, client.using((await client.generate()).token)):
        here = conversation_id if speaker is user else (await speaker.start()).conversation_id
        await speaker.send(here, {**MESSAGE, "from": {"id": "bot", "role": "bot"}})
        await speaker.send(here, {**MESSAGE, "from": {"id": "somebody", "role": "bot"}})
        for activity in await speaker.all_activities(here):
            assert activity["from"]["id"] in ("dl_user", "somebody")
            assert activity["from"].get("role") != "bot"


async def test_no_request_ever_goes_to_an_address_that_an_unverified_token_names(
    trust: Trust, client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    """Every place that a token has for an address, under our name, a trusted issuer's, and its own."""
    async with Ear() as ear:
        key = SigningKey.of(new_key(), 0)
        places = {"jku": f"{ear.url}/keys", "x5u": f"{ear.url}/cert", "iss": ear.url, "jwk": {"kty": "RSA"}}
        for issuer in (ear.url, f"{ear.url}/v2.0", trust.issuer, trust.other.issuer):
            for kid in (key.kid, trust.key.kid, f"{ear.url}/kid"):
                said = claims(iss=issuer, serviceurl=ear.url, jku=f"{ear.url}/keys", tid=ear.url)
                token = forged({"alg": "RS256", "kid": kid, **places}, said, key.private)
                assert (await speak(bot, conversation_id, bearer(token))).status == 401
        assert ear.heard == 0
    assert await client.all_activities(conversation_id) == []


@pytest.mark.bot_item(94)
async def test_neither_secrets_nor_tokens_are_in_the_log(
    trust: Trust, client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    """Not even where a bot prints what it was sent, or somebody shows a secret in the wrong place."""

    async def print_everything(bot: ScriptedBot, activity: Activity) -> None:
        headers = bot.received[-1].headers
        bot.answer(401, f"bad header: {headers['Authorization']} at {activity['serviceUrl']} " + "x" * 5000)

    bot.on_activity = print_everything
    assert (await client.send(conversation_id, "print it")).status == 502
    shown = [each for each in bot.received if each.conversation_id == conversation_id]
    tokens = [each.headers["Authorization"].removeprefix("Bearer ") for each in shown]
    url = f"{trust.landline.url}/oauth2/v2.0/token"
    given = (await granted(bot, url)).json["access_token"]
    bad = trust.token(exp=1)
    await granted(bot, url, client_secret="wrong-secret-in-the-form")
    for token in (given, bad):
        await speak(bot, conversation_id, bearer(token))
    log = trust.landline.log
    assert "bad header: Bearer ***" in log, "the reason is there"
    private = json.loads(trust.key.to_keep())["private"]
    for secret in (*APP_SECRETS, *tokens, given, bad, "wrong-secret-in-the-form", SECRET, private):
        assert secret not in log
        signature = secret.rpartition(".")[2]
        assert len(signature) < 40 or signature not in log
