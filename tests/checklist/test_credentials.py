"""Who is let in, and where to (spec 4; checklist B).

Several sites and bots, rotation and revocation (items 32 to 37) are in `test_sites.py`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import jwt
import pytest
import pytest_asyncio

from landline.conformance.directline import DEADLINE_S, Answer, DirectLine, claims, parameter
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNKNOWN = "NoSuchConversation0000"
Call = Callable[[DirectLine, str], Awaitable[Answer]]
CALLS: dict[str, Call] = {
    "start": lambda client, _: client.start(),
    "reconnect": lambda client, id_: client.reconnect(id_),
    "activities": lambda client, id_: client.activities(id_),
    "send": lambda client, id_: client.send(id_, "hello"),
    "refresh": lambda client, _: client.refresh(),
}
"""What a token opens."""
ALL_CALLS: dict[str, Call] = {**CALLS, "generate": lambda client, _: client.generate()}
ON_A_CONVERSATION = ("reconnect", "activities", "send")


def handshake(client: DirectLine, conversation_id: str, t: str) -> Awaitable[Answer]:
    """Ask for a stream with this `t`."""
    return client.handshake(f"{client.domain}/conversations/{conversation_id}/stream?t={t}")


def part(value: object) -> str:
    """A part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class TestNoCredential:
    @pytest.mark.item(23, 24)
    @pytest.mark.parametrize(
        "authorization",
        [None, "", "Basic x", f"Basic {SECRET}", "Bearer", "Bearer ", SECRET, f"Bearer{SECRET}", f"Bearer {SECRET} x"],
    )
    @pytest.mark.parametrize("call", ALL_CALLS)
    async def test_is_401(self, client: DirectLine, conversation_id: str, call: str, authorization: str | None) -> None:
        answer = await _call_with(client, call, conversation_id, authorization)
        assert answer.error == (401, "BadArgument")

    async def test_in_the_query_is_none_either(self, client: DirectLine, conversation_id: str) -> None:
        path = f"/conversations/{conversation_id}/activities?t={SECRET}&token={SECRET}&access_token={SECRET}"
        assert (await client.using(None).request("GET", path)).error == (401, "BadArgument")


async def _call_with(client: DirectLine, call: str, conversation_id: str, authorization: str | None) -> Answer:
    """The call with this Authorization header, or without any."""
    method, path = {
        "start": ("POST", "/conversations"),
        "generate": ("POST", "/tokens/generate"),
        "refresh": ("POST", "/tokens/refresh"),
        "reconnect": ("GET", f"/conversations/{conversation_id}"),
        "activities": ("GET", f"/conversations/{conversation_id}/activities"),
        "send": ("POST", f"/conversations/{conversation_id}/activities"),
    }[call]
    headers = {} if authorization is None else {"Authorization": authorization}
    return await client.using(None).request(method, path, headers=headers)


class TestTheSchemeBearer:
    @pytest.mark.item(25)
    @pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
    async def test_is_read_without_regard_to_case(self, client: DirectLine, scheme: str) -> None:
        started = await client.start()
        nobody = client.using(None)
        for credential in (started.token, SECRET):
            headers = {"authorization": f"{scheme} {credential}"}
            assert (await nobody.activities(started.conversation_id, headers=headers)).status == 200


class TestWhatIsNoCredentialOfOurs:
    @pytest.mark.item(26)
    @pytest.mark.parametrize(
        "random",
        [
            "x",
            "a-random-string-of-some-length-0123456789",
            SECRET[:-1],
            SECRET + "x",
            SECRET.upper(),
            "a.b.c",
            "...",
            "..",
            f"{part({'alg': 'HS256'})}.{part([])}.",
            f"{part('x')}.{part({})}.x",
            "e30.e30.e30",
            "\xe9\xfc",
            "%41",
            "[" * 5000,
            "x" * 16000,
            f"{part({'alg': 'HS256', 'deep': None})}.{'x' * 9000}.x",
        ],
        ids=lambda value: value[:24],
    )
    @pytest.mark.parametrize("call", ALL_CALLS)
    async def test_is_403(self, client: DirectLine, conversation_id: str, call: str, random: str) -> None:
        answer = await ALL_CALLS[call](client.using(random), conversation_id)
        assert answer.error == (403, "BadArgument")

    @pytest.mark.item(27)
    async def test_is_a_token_with_one_character_of_its_signature_changed(
        self, client: DirectLine, conversation_id: str
    ) -> None:
        started = await client.start()
        head, _, signature = started.token.rpartition(".")
        for i, character in enumerate(signature):
            changed = chr(ord(character) ^ 1) if character not in "-_" else "A"
            forged = f"{head}.{signature[:i]}{changed}{signature[i + 1 :]}"
            answer = await client.using(forged).activities(started.conversation_id)
            assert answer.error == (403, "BadArgument"), f"character {i} of {len(signature)}"

    @pytest.mark.item(27)
    async def test_is_a_token_in_another_spelling(self, client: DirectLine) -> None:
        """The last character of a signature has bits that decoding drops; one token must not have four spellings."""
        started = await client.start()
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        others = [started.token[:-1] + last for last in alphabet if last != started.token[-1]]
        others += [started.token + "=", started.token + "A", started.token.replace(".", "=.", 1), started.token + "."]
        for other in others:
            answer = await client.using(other).activities(started.conversation_id)
            assert answer.error == (403, "BadArgument"), other[-8:]

    @pytest.mark.item(30)
    @pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS384", "HS512"])
    async def test_is_a_token_of_somebody_else(self, client: DirectLine, algorithm: str) -> None:
        """All its claims are those of a good one."""
        started = await client.start()
        said = claims(started.token)
        if algorithm.lower() == "none":
            unsigned = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{started.token.split('.')[1]}."
            signature = started.token.rpartition(".")[2]
            forged = [unsigned, unsigned + signature, jwt.encode(said, None, algorithm="none")]
        else:
            keys = (SECRET * 2, "x" * 64, "landline" * 8, started.token)
            forged = [jwt.encode(said, key, algorithm=algorithm) for key in keys]
        for token in forged:
            for call in CALLS.values():
                assert (await call(client.using(token), started.conversation_id)).error == (403, "BadArgument")
            assert (await handshake(client, started.conversation_id, token)).error == (403, "BadArgument")

    @pytest.mark.item(41)
    @pytest.mark.parametrize("call", ALL_CALLS)
    async def test_is_a_ticket(self, client: DirectLine, call: str) -> None:
        started = await client.start()
        ticket = parameter(started.stream_url, "t")
        assert ticket is not None
        answer = await ALL_CALLS[call](client.using(ticket), started.conversation_id)
        assert answer.error == (403, "BadArgument")

    async def test_cannot_be_told_from_a_secret_by_its_answer(self, client: DirectLine, conversation_id: str) -> None:
        """Whatever is wrong with it, the text of the answer is the same: no hint for whoever tries keys."""
        answers = [
            await client.using(random).activities(conversation_id) for random in (SECRET[:-1], "x", "e30.e30.e30")
        ]
        assert len({answer.body for answer in answers}) == 1


class TestATokenIsForOneConversation:
    @pytest.mark.item(31)
    async def test_and_not_for_another_that_exists(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        mine = await client.start()
        page = client.using(mine.token)
        for call in ON_A_CONVERSATION:
            assert (await CALLS[call](page, conversation_id)).error == (403, "BadArgument")
        assert (await handshake(client, conversation_id, mine.token)).error == (403, "BadArgument")
        assert await client.all_activities(conversation_id) == []
        for call in ON_A_CONVERSATION:
            assert (await CALLS[call](page, mine.conversation_id)).status == 200
        assert (await handshake(client, mine.conversation_id, mine.token)).status == 101
        assert [each["type"] for each in bot.heard(conversation_id)] == ["conversationUpdate"]

    async def test_while_the_secret_opens_all(self, client: DirectLine) -> None:
        for _ in range(3):
            started = await client.start()
            for call in ON_A_CONVERSATION:
                assert (await CALLS[call](client, started.conversation_id)).status == 200


class TestWhichCredentialForWhichCall:
    """The table of 4.3. What another credential gets is in the answer alone: 403."""

    STATUSES: tuple[tuple[str, dict[str, int]], ...] = (
        ("generate", {"secret": 200, "token": 403, "ticket": 403}),
        ("refresh", {"secret": 403, "token": 200, "ticket": 403}),
        ("start", {"secret": 201, "token": 200, "ticket": 403}),
        ("reconnect", {"secret": 200, "token": 200, "ticket": 403}),
        ("activities", {"secret": 200, "token": 200, "ticket": 403}),
        ("send", {"secret": 200, "token": 200, "ticket": 403}),
        ("stream", {"secret": 403, "token": 101, "ticket": 101}),
    )

    @pytest.mark.parametrize(("call", "statuses"), STATUSES, ids=[call for call, _ in STATUSES])
    async def test_is_as_the_table_says(self, client: DirectLine, call: str, statuses: dict[str, int]) -> None:
        started = await client.start()
        ticket = parameter(started.stream_url, "t") or ""
        for credential, value in (("secret", SECRET), ("token", started.token), ("ticket", ticket)):
            if call == "stream":
                answer = await handshake(client, started.conversation_id, value)
            else:
                answer = await ALL_CALLS[call](client.using(value), started.conversation_id)
            assert answer.status == statuses[credential], credential
            if answer.status == 403:
                assert answer.code == "BadArgument"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty(tmp_path_factory: pytest.TempPathFactory, lasting_bot: ScriptedBot) -> AsyncIterator[Landline]:
    """A server whose tokens live for two seconds at most; they begin on whole seconds. No leeway."""
    data = tmp_path_factory.mktemp("hasty") / "data"
    settings = {"token_ttl_s": 2, "clock_leeway_s": 0, "drain_s": 0}
    async with Landline(data, bot=lasting_bot.endpoint, **settings) as landline:
        yield landline


async def until_expired(token: str) -> None:
    """Wait for the time that the token itself names."""
    async with asyncio.timeout(DEADLINE_S):
        while time.time() < claims(token)["exp"]:
            await asyncio.sleep(0.02)


class TestAnExpiredToken:
    @pytest.mark.item(28)
    async def test_is_told_so_by_every_call(self, hasty: Landline) -> None:
        """Uploads, when they come."""
        async with DirectLine(hasty.directline, SECRET) as client:
            started = await client.start()
            unstarted = await client.generate()
            await until_expired(started.token)
            for call in CALLS.values():
                answer = await call(client.using(started.token), started.conversation_id)
                assert answer.error == (403, "TokenExpired")
            assert (await handshake(client, started.conversation_id, started.token)).error == (403, "TokenExpired")
            await until_expired(unstarted.token)
            assert (await client.using(unstarted.token).start()).error == (403, "TokenExpired")
            assert (await client.activities(unstarted.conversation_id)).error == (404, "BadArgument")
            assert await client.all_activities(started.conversation_id) == []
            revived = await client.reconnect(started.conversation_id)
            assert (await client.using(revived.token).activities(started.conversation_id)).status == 200

    @pytest.mark.item(29)
    async def test_that_is_forged_is_no_token_at_all(self, hasty: Landline) -> None:
        async with DirectLine(hasty.directline, SECRET) as client:
            started = await client.start()
            await until_expired(started.token)
            head, _, signature = started.token.rpartition(".")
            broken = f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
            foreign = jwt.encode(claims(started.token), "x" * 64, algorithm="HS256")
            for token in (broken, foreign):
                for call in CALLS.values():
                    answer = await call(client.using(token), started.conversation_id)
                    assert answer.error == (403, "BadArgument")

    async def test_of_another_conversation_is_expired_first(self, hasty: Landline) -> None:
        """Expiry comes before scope (4.2, Validation order)."""
        async with DirectLine(hasty.directline, SECRET) as client:
            token = (await client.start()).token
            await until_expired(token)
            assert (await client.using(token).activities(UNKNOWN)).error == (403, "TokenExpired")


class TestAcrossARestart:
    @pytest.mark.item(38)
    @pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "SIGKILL"])
    async def test_credentials_stay_good(self, tmp_path: Path, lasting_bot: ScriptedBot, kill: bool) -> None:
        async with Landline(tmp_path / "data", bot=lasting_bot.endpoint, drain_s=0) as landline:
            async with DirectLine(landline.directline, SECRET) as client:
                started = await client.start(user={"id": "dl_ann"})
                generated = await client.generate()
                page = client.using(started.token)
                sent = await page.send(started.conversation_id, {"type": "message", "text": "before"})
                watermark = (await page.activities(started.conversation_id)).watermark
            await landline.restart(kill=kill)
            async with DirectLine(landline.directline, started.token) as page:
                assert [each["id"] for each in await page.all_activities(started.conversation_id)] == [sent.json["id"]]
                assert (await page.activities(started.conversation_id, watermark)).replay == "complete"
                assert (await page.refresh()).status == 200
                assert (await page.start()).status == 200
                assert (await page.reconnect(started.conversation_id)).status == 200
                assert (await page.send(started.conversation_id, {"type": "message", "text": "after"})).status == 200
                assert (await page.handshake(started.stream_url)).status == 101
                assert (await page.using(generated.token).start()).status == 201
                assert (await page.using(SECRET).activities(started.conversation_id)).status == 200


class TestWhatATokenSays:
    @pytest.mark.item(39)
    async def test_is_the_claims_of_the_specification(self, client: DirectLine) -> None:
        before = int(time.time())
        answer = await client.generate(
            user={"id": "ann", "name": "Ann"}, trustedOrigins=["https://WWW.example.org:443/"]
        )
        said = claims(answer.token)
        assert sorted(said) == sorted(
            ["bot", "site", "conv", "user", "name", "origin", "ski", "jti", "oat", "nbf", "exp", "iss", "aud"]
        )
        assert said["conv"] == answer.conversation_id
        assert all(isinstance(said[name], str) and said[name] for name in ("bot", "site", "jti"))
        assert said["exp"] - said["nbf"] == answer.json["expires_in"]
        assert before <= said["oat"] == said["nbf"] <= time.time()
        assert all(isinstance(said[name], int) for name in ("oat", "nbf", "exp"))
        assert said["iss"] == said["aud"] == "landline"
        assert len(said["ski"]) == 12
        assert SECRET not in json.dumps(said)
        assert said["name"] == "Ann"
        assert said["origin"] == ["https://www.example.org"]

    async def test_is_of_its_own_each_time(self, client: DirectLine) -> None:
        ids = {claims((await client.generate()).token)["jti"] for _ in range(10)}
        assert len(ids) == 10

    @pytest.mark.item(40)
    async def test_names_the_user_it_is_bound_to_and_no_other(self, client: DirectLine) -> None:
        for user in ("dl_ann", "ann", "Änne 🙂", "u" * 256):
            generated = await client.generate(user={"id": user})
            started = await client.using(generated.token).start()
            refreshed = await client.using(started.token).refresh()
            reconnected = await client.using(refreshed.token).reconnect(started.conversation_id)
            for answer in (generated, started, refreshed, reconnected):
                assert claims(answer.token)["user"] == user
        for nobody in ({}, {"user": {}}, {"user": {"id": None}}, {"user": None}):
            generated = await client.generate(**nobody)
            started = await client.using(generated.token).start(user={"id": "ann"})
            for answer in (generated, started, await client.using(started.token).refresh()):
                assert "user" not in claims(answer.token)
