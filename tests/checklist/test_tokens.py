"""Generate Token and Refresh Token over the wire (spec 5.1, 4.4; checklist C)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from landline.conformance.directline import CONVERSATION_ID, DEADLINE_S, DirectLine, claims
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def until_after(seconds: float) -> None:
    """Wait until the clock has passed a whole second of a token."""
    async with asyncio.timeout(DEADLINE_S):
        while time.time() <= seconds:
            await asyncio.sleep(0.02)


class TestGenerate:
    @pytest.mark.item(42)
    async def test_answers_a_token_for_an_hour_and_nothing_else(self, client: DirectLine) -> None:
        answer = await client.generate()
        assert answer.status == 200
        assert sorted(answer.json) == ["conversationId", "expires_in", "token"]
        assert type(answer.json["expires_in"]) is int
        assert answer.json["expires_in"] == 3600
        assert CONVERSATION_ID.fullmatch(answer.conversation_id)
        assert claims(answer.token)["conv"] == answer.conversation_id

    @pytest.mark.item(43)
    async def test_is_for_a_new_conversation_each_time(self, client: DirectLine) -> None:
        answers = await asyncio.gather(*(client.generate() for _ in range(50)))
        assert len({answer.conversation_id for answer in answers}) == 50
        assert len({answer.token for answer in answers}) == 50

    @pytest.mark.item(44)
    async def test_does_not_call_the_bot(self, client: DirectLine, bot: ScriptedBot, conversation_id: str) -> None:
        generated = [await client.generate(user={"id": f"user {n}"}) for n in range(5)]
        assert (await client.send(conversation_id, "later than that")).status == 200
        started = await client.using(generated[0].token).start()
        assert started.status == 201
        assert (await client.send(started.conversation_id, "later still")).status == 200
        for answer in generated[1:]:
            assert bot.heard(answer.conversation_id) == []
        joins = [each["type"] for each in bot.heard(started.conversation_id)].count("conversationUpdate")
        assert joins == 2, "one for the start, one for the sender; none for the token"

    @pytest.mark.item(45)
    @pytest.mark.parametrize(
        "parameters",
        [
            {"User": {"Id": "dl_a", "Name": "Ann"}, "TrustedOrigins": ["https://example.org"]},
            {"user": {"id": "dl_a", "name": "Ann"}, "trustedOrigins": ["https://example.org"]},
            {"USER": {"ID": "dl_a", "NAME": "Ann"}, "TRUSTEDORIGINS": ["https://example.org"]},
        ],
        ids=["Pascal", "camel", "UPPER"],
    )
    async def test_reads_names_without_regard_to_case(self, client: DirectLine, parameters: dict[str, object]) -> None:
        said = claims((await client.generate(**parameters)).token)
        assert (said["user"], said["name"], said["origin"]) == ("dl_a", "Ann", ["https://example.org"])

    @pytest.mark.item(46)
    @pytest.mark.parametrize("user", [{}, {"id": None}, {"name": "Ann"}, None], ids=str)
    async def test_binds_no_user_where_none_is_named(self, client: DirectLine, user: object) -> None:
        answer = await client.generate(user=user)
        assert answer.status == 200
        assert "user" not in claims(answer.token)

    @pytest.mark.item(47)
    @pytest.mark.parametrize("id_", [1.5, True, ["u"], {"id": "u"}, "", "u" * 257], ids=lambda id_: str(id_)[:16])
    async def test_takes_only_a_string_of_1_to_256_characters_for_a_user(self, client: DirectLine, id_: object) -> None:
        answer = await client.generate(user={"id": id_})
        assert answer.error == (400, "BadArgument")

    async def test_takes_256_characters_of_any_alphabet(self, client: DirectLine) -> None:
        for user in ("u" * 256, "ü" * 256, "🙂" * 256):
            assert claims((await client.generate(user={"id": user})).token)["user"] == user

    @pytest.mark.item(48)
    @pytest.mark.parametrize(
        "origin",
        [
            "example.org",
            "https://",
            "https://example.org/path",
            "https://a b",
            "https://example.org:port",
            "https://example.org:99999",
            "//example.org",
            "https://*.example.org",
            "",
            1,
            {},
        ],
    )
    async def test_takes_no_malformed_origin(self, client: DirectLine, origin: object) -> None:
        answer = await client.generate(trustedOrigins=["https://www.example.org", origin])
        assert answer.error == (400, "BadArgument")

    async def test_takes_origins_in_any_of_their_spellings(self, client: DirectLine) -> None:
        origins = [
            "https://WWW.Example.org:443/",
            "http://example.org:80",
            "http://localhost:3000",
            "http://[::1]:8080",
            "*",
        ]
        answer = await client.generate(trustedOrigins=origins)
        assert claims(answer.token)["origin"] == [
            "https://www.example.org",
            "http://example.org",
            "http://localhost:3000",
            "http://[::1]:8080",
            "*",
        ]

    @pytest.mark.parametrize(
        ("parameters", "reason"),
        [
            ({"user": {"id": "ann", "name": "A" * 40_000}}, "user.name"),
            ({"user": {"id": "ann", "name": "A" * 257}}, "user.name"),
            ({"trustedOrigins": [f"https://www{number}.example.org" for number in range(3000)]}, "more than"),
            ({"trustedOrigins": [f"https://www{number}.example.org" for number in range(200)]}, "3500"),
        ],
        ids=["a very long name", "a name", "very many origins", "long origins"],
    )
    async def test_makes_no_token_that_could_not_be_used(
        self, client: DirectLine, parameters: dict[str, object], reason: str
    ) -> None:
        """Decision 24; nor does a start."""
        for answer in (await client.generate(**parameters), await client.start(**parameters)):
            assert answer.error == (400, "BadArgument")
            assert reason in answer.json["error"]["message"]

    async def test_makes_the_longest_token_that_can_be_used(self, client: DirectLine) -> None:
        """In a header, and in a URL beside the longest watermark (7.2, D-26 c)."""
        user = {"id": "u" * 256, "name": "n" * 256}
        origins = [f"https://{number:02}{'x' * 55}.org" for number in range(50)]
        generated = await client.generate(user=user, trustedOrigins=origins)
        assert len(generated.token) > 5_000
        page = client.using(generated.token)
        started = await page.start()
        assert started.status == 201
        url = f"{client.domain}/conversations/{started.conversation_id}/stream/multimodal"
        assert (await client.handshake(f"{url}?watermark={'0' * 64}&t={started.token}")).status == 101

    async def test_ignores_what_it_does_not_know(self, client: DirectLine) -> None:
        """`eTag` too (1)."""
        answer = await client.generate(eTag=5, something=[1], user={"id": "u", "role": 7})
        assert answer.status == 200
        assert sorted(answer.json) == ["conversationId", "expires_in", "token"]

    @pytest.mark.item(49)
    async def test_needs_the_secret(self, client: DirectLine) -> None:
        for token in ((await client.generate()).token, (await client.start()).token):
            assert (await client.using(token).generate()).error == (403, "BadArgument")
            assert (await client.using(token).generate(user={"id": "u"})).error == (403, "BadArgument")


class TestRefresh:
    @pytest.mark.item(50)
    @pytest.mark.parametrize(
        "parameters", [{}, {"user": {"id": "dl_a", "name": "Ann"}, "trustedOrigins": ["*"]}], ids=str
    )
    async def test_answers_a_new_token_for_the_same(self, client: DirectLine, parameters: dict[str, object]) -> None:
        old = await client.generate(**parameters)
        before = claims(old.token)
        await until_after(before["nbf"] + 1)
        new = await client.using(old.token).refresh()
        after = claims(new.token)
        assert new.status == 200
        assert sorted(new.json) == ["conversationId", "expires_in", "token"]
        assert new.token != old.token
        assert new.conversation_id == old.conversation_id
        assert after["exp"] > before["exp"]
        assert after["exp"] - after["nbf"] == new.json["expires_in"] == 3600
        for name in ("user", "name", "origin", "oat", "conv", "ski", "bot", "site"):
            assert after.get(name) == before.get(name)
        assert after["jti"] != before["jti"]

    @pytest.mark.item(51)
    async def test_leaves_the_old_token_good(self, tmp_path: Path, bot: ScriptedBot) -> None:
        """Until its own expiry, and not longer; the new one outlives it."""
        settings = {"token_ttl_s": 4, "clock_leeway_s": 0, "drain_s": 0}
        async with (
            Landline(tmp_path / "data", bot=bot.endpoint, **settings) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            old = await client.start()
            await until_after(claims(old.token)["nbf"] + 2)
            new = await client.using(old.token).refresh()
            statuses = set()
            async with asyncio.timeout(DEADLINE_S):
                while time.time() < claims(old.token)["exp"]:
                    answer = await client.using(old.token).activities(old.conversation_id)
                    if time.time() < claims(old.token)["exp"]:
                        statuses.add(answer.status)
                    await asyncio.sleep(0.05)
            assert statuses == {200}
            late = await client.using(old.token).activities(old.conversation_id)
            assert late.error == (403, "TokenExpired")
            assert (await client.using(new.token).activities(old.conversation_id)).status == 200

    @pytest.mark.item(52)
    async def test_may_be_repeated(self, client: DirectLine) -> None:
        """Ten in a row, each from the one before; and ten times the same."""
        started = await client.start()
        chain = [started.token]
        for _ in range(10):
            answer = await client.using(chain[-1]).refresh()
            assert answer.status == 200
            chain.append(answer.token)
        again = await asyncio.gather(*(client.using(started.token).refresh() for _ in range(10)))
        assert {answer.status for answer in again} == {200}
        tokens = {*chain, *(answer.token for answer in again)}
        assert len(tokens) == 21
        for token in tokens:
            assert (await client.using(token).activities(started.conversation_id)).status == 200

    @pytest.mark.item(53)
    async def test_is_not_for_secrets(self, client: DirectLine) -> None:
        assert (await client.refresh()).error == (403, "BadArgument")

    @pytest.mark.item(54)
    async def test_needs_no_started_conversation_and_starts_none(self, client: DirectLine, bot: ScriptedBot) -> None:
        generated = await client.generate(user={"id": "ann"})
        refreshed = await client.using(generated.token).refresh()
        assert refreshed.status == 200
        page = client.using(refreshed.token)
        assert (await page.activities(generated.conversation_id)).error == (404, "BadArgument")
        assert bot.heard(generated.conversation_id) == []
        assert (await page.start()).status == 201

    async def test_takes_a_body_for_nothing(self, client: DirectLine) -> None:
        """It has no parameters (5): what a client sends along changes nothing."""
        generated = await client.generate(user={"id": "ann"})
        for body in (b"{}", b'{"user":{"id":"bob"}}'):
            answer = await client.using(generated.token).request(
                "POST", "/tokens/refresh", data=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status == 200
            assert claims(answer.token)["user"] == "ann"


class TestTheEndOfAChain:
    async def test_ends_renewal_and_nothing_else(self, tmp_path: Path, bot: ScriptedBot) -> None:
        """4.2, Chain. What was issued inside the chain has its full life; the secret begins a new one."""
        async with (
            Landline(tmp_path / "data", bot=bot.endpoint, token_chain_s=1, drain_s=0) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            started = await client.start(user={"id": "ann"})
            page, id_ = client.using(started.token), started.conversation_id
            assert (await page.refresh()).status == 200
            await until_after(claims(started.token)["oat"] + 3)
            assert (await page.refresh()).error == (403, "TokenExpired")
            assert (await page.reconnect(id_)).error == (403, "TokenExpired")
            assert (await page.start()).error == (403, "TokenExpired")
            broken = {"data": b"{", "headers": {"Content-Type": "application/json"}}
            assert (await page.request("POST", "/conversations", **broken)).error == (403, "TokenExpired")
            assert (await page.send(id_, {"type": "message", "text": "still here"})).status == 200
            assert (await page.activities(id_)).status == 200
            assert (await page.handshake(started.stream_url)).status == 101
            revived = await client.reconnect(id_)
            assert claims(revived.token)["user"] == "ann"
            assert claims(revived.token)["oat"] > claims(started.token)["oat"]
            assert (await client.using(revived.token).refresh()).status == 200


class TestAnUnstartedConversation:
    @pytest.mark.item(55)
    async def test_is_unknown(self, client: DirectLine, bot: ScriptedBot) -> None:
        """To its token and to the secret; a handshake meets the same."""
        generated = await client.generate(user={"id": "ann"})
        id_ = generated.conversation_id
        for asking in (client.using(generated.token), client):
            for answer in (await asking.activities(id_), await asking.reconnect(id_), await asking.send(id_, "hello")):
                assert answer.error == (404, "BadArgument")
        handshake = await client.handshake(f"{client.domain}/conversations/{id_}/stream?t={generated.token}")
        assert handshake.error == (404, "BadArgument")
        assert (await client.using(generated.token).start()).status == 201
        assert await client.all_activities(id_) == []
        assert (await client.using(generated.token).send(id_, "hello")).status == 200
        assert [each.get("text") for each in bot.heard(id_)] == [None, "hello"]
