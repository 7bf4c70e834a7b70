"""Enhanced authentication and trusted origins (4.6, D-17, D-21; checklist J)."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from landline.conformance.directline import DirectLine, claims, edited
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.operator import Operator
from support.streams import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE, ELSEWHERE = "https://www.example.org", "https://evil.example"
USER = {"id": "dl_ann", "name": "Ann"}
MISSING, BAD, FORBIDDEN = (400, "MissingProperty"), (400, "BadArgument"), (403, "BadArgument")
_numbers = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="module")
async def operator(landline: Landline) -> AsyncIterator[Operator]:
    async with Operator(landline) as operator:
        yield operator


@pytest_asyncio.fixture(loop_scope="module")
async def enhanced(operator: Operator, client: DirectLine) -> Callable[..., Awaitable[DirectLine]]:
    """Makes clients with the secret of a site of their own, which has enhanced authentication."""

    async def make(*origins: str) -> DirectLine:
        site = f"enhanced-{next(_numbers)}"
        secret = await operator.add_site(site, enhanced_authentication=True, trusted_origins=list(origins))
        return client.using(secret)

    return make


MakeClient = Callable[..., Awaitable[DirectLine]]


class TestEnhancedAuthentication:
    @pytest.mark.item(175)
    @pytest.mark.parametrize("call", ["generate", "start"])
    async def test_asks_a_secret_for_a_user_whom_only_a_token_can_establish(
        self, enhanced: MakeClient, call: str
    ) -> None:
        client = await enhanced()
        assert (await getattr(client, call)()).error == MISSING
        assert (await getattr(client, call)(user={})).error == MISSING
        assert (await getattr(client, call)(user={"id": "x"})).error == BAD
        made = await getattr(client, call)(user=USER)
        assert made.status == (200 if call == "generate" else 201)
        assert claims(made.token)["user"] == "dl_ann"

    @pytest.mark.item(175)
    async def test_lets_a_token_without_a_user_only_look(
        self, client: DirectLine, operator: Operator, enhanced: MakeClient, bot: ScriptedBot
    ) -> None:
        """Such tokens are those from before it was turned on."""
        site = f"plain-{next(_numbers)}"
        plain = client.using(await operator.add_site(site))
        fresh, started = await plain.generate(), await plain.start()
        await operator.done("PATCH", f"/sites/{site}", {"enhanced_authentication": True})
        assert (await client.using(fresh.token).start()).error == MISSING
        unbound = client.using(started.token)
        assert (await unbound.start()).error == MISSING
        assert (await unbound.reconnect(started.conversation_id)).error == MISSING
        assert (await unbound.send(started.conversation_id, "hello")).error == MISSING
        upload = f"/conversations/{started.conversation_id}/upload?userId=u"
        assert (await unbound.request("POST", upload, data=b"x")).error == MISSING
        assert (await unbound.activities(started.conversation_id)).status == 200
        assert (await unbound.refresh()).status == 200

    async def test_lets_a_bound_token_do_everything(self, enhanced: MakeClient) -> None:
        client = await enhanced()
        started = await client.start(user=USER)
        bound = client.using(started.token)
        assert (await bound.start()).status == 200
        assert (await bound.reconnect(started.conversation_id)).status == 200
        sent = await bound.send(started.conversation_id, {"type": "message", "from": {"id": "dl_eve"}, "text": "hi"})
        assert sent.status == 200
        (activity,) = await bound.all_activities(started.conversation_id)
        assert activity["from"]["id"] == "dl_ann"

    async def test_hears_nobody_on_a_stream_that_was_opened_for_no_user(
        self, client: DirectLine, operator: Operator, bot: ScriptedBot, landline: Landline
    ) -> None:
        site = f"plain-{next(_numbers)}"
        plain = client.using(await operator.add_site(site))
        started = await plain.start()
        await operator.done("PATCH", f"/sites/{site}", {"enhanced_authentication": True})
        url = edited(started.stream_url.replace("/stream?", "/stream/multimodal?"))
        async with client.stream(url) as stream:
            await stream.say('{"type":"message","from":{"id":"u"},"text":"psst"}')
            await until(lambda: "opened for no user" in landline.log, "a line in the log")
            assert stream.open
        assert await plain.all_activities(started.conversation_id) == []


class TestTrustedOrigins:
    @pytest.mark.item(176)
    async def test_a_page_from_elsewhere_cannot_start(self, enhanced: MakeClient) -> None:
        """The list is the request's; the site has none."""
        client = await enhanced()
        token = (await client.generate(user=USER, trustedOrigins=[HERE + ":443/"])).token
        assert claims(token)["origin"] == [HERE]
        page = client.using(token)
        assert (await page.at(ELSEWHERE).start()).error == FORBIDDEN
        assert (await page.at("null").start()).error == FORBIDDEN
        assert (await page.start()).status == 201
        assert (await page.at(HERE.upper()).start()).status == 200

    @pytest.mark.item(176)
    async def test_the_sites_list_wins_over_the_requests(self, enhanced: MakeClient) -> None:
        client = await enhanced("https://WWW.example.org:443")
        made = await client.generate(user=USER, trustedOrigins=[ELSEWHERE])
        assert claims(made.token)["origin"] == [HERE]
        page = client.using(made.token)
        assert (await page.at(ELSEWHERE).start()).error == FORBIDDEN
        assert (await page.at(HERE).start()).status == 201

    async def test_hold_for_every_call_and_for_streams(self, enhanced: MakeClient) -> None:
        client = await enhanced(HERE)
        for asked in (client.at(ELSEWHERE).generate(user=USER), client.at(ELSEWHERE).start(user=USER)):
            assert (await asked).error == FORBIDDEN
        started = await client.start(user=USER)
        page, id_ = client.using(started.token), started.conversation_id
        for origin, allowed in ((HERE, True), (ELSEWHERE, False)):
            there = page.at(origin)
            answers = (
                await there.activities(id_),
                await there.reconnect(id_),
                await there.send(id_, "hello"),
                await there.refresh(),
                await there.start(),
            )
            assert [each.status for each in answers] == [200 if allowed else 403] * 5
            for url in (started.stream_url, edited(started.stream_url, t=started.token)):
                assert (await there.handshake(url)).status == (101 if allowed else 403)

    async def test_of_a_request_hold_for_itself_and_for_streams_by_its_token(self, enhanced: MakeClient) -> None:
        client = await enhanced()
        refused = await client.at(ELSEWHERE).start(user=USER, trustedOrigins=[HERE])
        assert refused.error == FORBIDDEN
        started = await client.at(HERE).start(user=USER, trustedOrigins=[HERE])
        by_token = edited(started.stream_url, t=started.token)
        assert (await client.at(ELSEWHERE).handshake(by_token)).error == FORBIDDEN
        # The ticket carries no origins; where it was issued they were checked (D-21).
        assert (await client.at(ELSEWHERE).handshake(started.stream_url)).status == 101

    async def test_mean_nothing_without_enhanced_authentication(self, client: DirectLine, operator: Operator) -> None:
        secret = await operator.add_site(f"plain-{next(_numbers)}", trusted_origins=[HERE])
        started = await client.using(secret).at(ELSEWHERE).start()
        assert started.status == 201
        assert (await client.at(ELSEWHERE).handshake(started.stream_url)).status == 101

    async def test_any_is_any(self, enhanced: MakeClient) -> None:
        client = await enhanced("*")
        assert (await client.at(ELSEWHERE).start(user=USER)).status == 201

    async def test_that_are_none_are_refused(self, operator: Operator) -> None:
        body = {"id": "malformed", "bot_id": "bot", "trusted_origins": ["https://example.org/path"]}
        assert (await operator.call("POST", "/sites", body)).error == BAD
        assert (await operator.call("GET", "/sites/malformed")).status == 404


async def test_settings_of_the_one_site_are_heard(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("settings") / "data"
    environment = {"LANDLINE_ENHANCED_AUTHENTICATION": "true", "LANDLINE_TRUSTED_ORIGINS": f"{HERE}/"}
    async with (
        Landline(data, environment=environment, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        assert (await client.start()).error == MISSING
        assert (await client.at(ELSEWHERE).start(user=USER)).error == FORBIDDEN
        assert (await client.at(HERE).start(user=USER)).status == 201
