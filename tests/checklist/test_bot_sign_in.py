"""There is no token service here: nobody is signed in, and whoever asks is told so (bot 7)."""

from __future__ import annotations

import pytest

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import Landline

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATIONS = (
    ("POST", "/api/usertoken/GetAadTokens?userId=ann&connectionName=github&channelId=directline"),
    ("DELETE", "/api/usertoken/SignOut?userId=ann&connectionName=github&channelId=directline"),
    ("GET", "/api/usertoken/GetTokenStatus?userId=ann&channelId=directline"),
    ("POST", "/api/usertoken/exchange?userId=ann&connectionName=github&channelId=directline"),
    ("GET", "/api/usertoken/GetTokenOrSignInResource?userId=ann&connectionName=github&channelId=directline&state=e30"),
    ("GET", "/api/botsignin/GetSignInUrl?state=e30"),
    ("GET", "/api/botsignin/GetSignInResource?state=e30"),
    ("POST", "/api/usertoken/GetToken?userId=ann&connectionName=github&channelId=directline"),
    ("GET", "/api/usertoken/made/up"),
)
GET_TOKEN = "/api/usertoken/GetToken?userId=ann&connectionName=github&channelId=directline&code=123456"
CARD = {
    "contentType": "application/vnd.microsoft.card.oauth",
    "content": {
        "text": "Sign in",
        "connectionName": "github",
        "tokenExchangeResource": {"id": "1", "uri": "api://app", "unknown": [None]},
        "tokenPostResource": {"sasUrl": "https://issuer.example/post"},
        "buttons": [{"type": "signin", "title": "Sign in", "value": ""}],
    },
}


async def test_a_user_without_a_token_is_a_404_without_a_body(landline: Landline, bot: ScriptedBot) -> None:
    """At the root of the base: whatever stands in a body there, BB-js takes it for the user's token. The log says what
    was asked for, and not for whom."""
    for headers in ({}, {"Authorization": "Bearer a.b.c"}):
        answer = await bot.request("GET", landline.url + GET_TOKEN, headers=headers)
        assert (answer.status, answer.json, answer.headers["Content-Length"]) == (404, None, "0")
        assert "Content-Type" not in answer.headers
        assert answer.headers["X-Correlating-OperationId"]
    await bot.request("GET", f"{landline.url}/api/botsignin/GetSignInUrl?state=secret-state")
    for route in ("/api/usertoken/GetToken", "/api/botsignin/GetSignInUrl"):
        await landline.until_logged(f'"route":"{route}","status":404')
    for secret in ("123456", "a.b.c", "secret-state"):
        assert secret not in landline.log


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[path.partition("?")[0] for _, path in OPERATIONS])
async def test_who_asks_for_the_token_of_a_user_is_told_that_there_is_none(
    landline: Landline, bot: ScriptedBot, conversation_id: str, method: str, path: str
) -> None:
    """404 is what SDKs take for "there is none"; some break on an answer that is no JSON. With and without a token of
    the bot, at the base that bots are told as that of the token service and below their own service URL."""
    for base in (landline.url, bot.service_url(conversation_id)):
        for headers in ({}, {"Authorization": "Bearer a.b.c"}):
            answer = await bot.request(method, base + path, json={}, headers=headers)
            assert answer.status == 404, answer
            assert answer.headers["Content-Type"].startswith("application/json")
            assert answer.headers["X-Correlating-OperationId"]
            assert set(answer.json["error"]) == {"code", "message"}


async def test_a_sign_in_card_reaches_the_client_as_the_bot_wrote_it(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    """No link is put in, not even where there is none: it would lead nowhere."""
    sent = await bot.send(conversation_id, {"type": "message", "attachments": [CARD]})
    assert sent.status == 200
    (logged,) = await client.all_activities(conversation_id)
    assert logged["attachments"] == [CARD]


@pytest.mark.parametrize("name", ["signin/verifyState", "signin/tokenExchange"])
async def test_what_a_page_says_about_a_sign_in_reaches_the_bot_as_an_invoke(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, name: str
) -> None:
    """A bot with a token service of its own can go on from there."""
    value = {"state": "123456", "id": "1", "connectionName": "github", "token": "t"}
    said = {"type": "invoke", "name": name, "value": value, "from": {"id": "user"}}
    assert (await client.send(conversation_id, said)).status == 200
    received = await bot.wait_for(lambda each: each.activity.get("name") == name)
    assert received.activity["value"] == value
