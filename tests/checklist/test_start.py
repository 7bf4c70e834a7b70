"""Start Conversation over the wire (spec 5.2, 6.4; checklist D). Purging (item 67) does not exist yet."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from landline.conformance.directline import DEADLINE_S, Activity, Answer, DirectLine, claims, edited, parameter
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline

pytestmark = pytest.mark.asyncio(loop_scope="module")

STARTED = ["conversationId", "expires_in", "referenceGrammarId", "streamUrl", "token"]


async def greet(bot: ScriptedBot, activity: Activity) -> None:
    """Welcome who asks for it by joining: the bot's own join is the sign that the conversation began."""
    if activity["type"] == "conversationUpdate" and _added(activity, "bot"):
        answer = await bot.send(activity["conversation"]["id"], {"type": "message", "text": "welcome"})
        assert answer.status == 200


def _added(activity: Activity, id_: str) -> bool:
    return id_ in [member["id"] for member in activity.get("membersAdded", [])]


async def joins(client: DirectLine, bot: ScriptedBot, started: Answer, user: str = "user") -> list[set[str]]:
    """Who was announced to the bot together, in order, until a message of `user` that is sent now has arrived."""
    message = {"type": "message", "from": {"id": user}, "text": "barrier"}
    assert (await client.using(started.token).send(started.conversation_id, message)).status == 200
    heard = bot.heard(started.conversation_id)
    assert heard[-1]["text"] == "barrier"
    assert {each["type"] for each in heard[:-1]} <= {"conversationUpdate"}
    return [{member["id"] for member in each["membersAdded"]} for each in heard[:-1]]


async def until_logged(client: DirectLine, conversation_id: str, text: str) -> None:
    """Wait until Get Activities has it."""
    async with asyncio.timeout(DEADLINE_S):
        while text not in [each.get("text") for each in await client.all_activities(conversation_id)]:
            await asyncio.sleep(0.01)


class TestWithASecret:
    @pytest.mark.item(56)
    async def test_an_empty_body_is_enough(self, client: DirectLine) -> None:
        answer = await client.request("POST", "/conversations")
        assert answer.status == 201
        assert sorted(answer.json) == STARTED
        assert type(answer.json["expires_in"]) is int
        assert answer.json["expires_in"] == 3600
        assert claims(answer.token)["conv"] == answer.conversation_id
        assert (await client.using(answer.token).activities(answer.conversation_id)).status == 200
        assert (await client.handshake(answer.stream_url)).status == 101

    @pytest.mark.item(57)
    async def test_each_start_makes_a_conversation(self, client: DirectLine) -> None:
        first, second = await client.start(), await client.start()
        assert (first.status, second.status) == (201, 201)
        assert first.conversation_id != second.conversation_id
        await client.send(first.conversation_id, "in the first")
        assert await client.all_activities(second.conversation_id) == []

    @pytest.mark.item(68)
    async def test_the_user_of_the_body_is_bound(self, client: DirectLine, bot: ScriptedBot) -> None:
        started = await client.start(user={"id": "dl_ann", "name": "Ann"})
        said = claims(started.token)
        assert (said["user"], said["name"]) == ("dl_ann", "Ann")
        await client.using(started.token).send(started.conversation_id, "as somebody else")
        (echo,) = await client.all_activities(started.conversation_id)
        assert (echo["from"]["id"], echo["from"]["name"]) == ("dl_ann", "Ann")
        revived = await client.reconnect(started.conversation_id)
        assert claims(revived.token)["user"] == "dl_ann"


class TestWithAToken:
    @pytest.mark.item(58)
    async def test_its_conversation_is_started(self, client: DirectLine) -> None:
        generated = await client.generate()
        started = await client.using(generated.token).start()
        assert started.status == 201
        assert sorted(started.json) == STARTED
        assert started.conversation_id == generated.conversation_id == claims(generated.token)["conv"]
        assert started.token != generated.token
        assert claims(started.token)["oat"] == claims(generated.token)["oat"]

    @pytest.mark.item(59)
    async def test_a_repeated_start_finds_it_started_and_leaves_the_bot_alone(
        self, client: DirectLine, bot: ScriptedBot
    ) -> None:
        generated = await client.generate(user={"id": "ann"})
        page = client.using(generated.token)
        first = await page.start()
        refreshed = await page.refresh()
        await bot.wait_for(lambda each: each.conversation_id == first.conversation_id)
        answers = [
            await page.start(),
            await client.using(first.token).start(),
            await client.using(refreshed.token).start(),
        ]
        for answer in answers:
            assert answer.status == 200
            assert sorted(answer.json) == STARTED
            assert answer.conversation_id == first.conversation_id
            assert answer.stream_url != first.stream_url
            assert (await client.handshake(answer.stream_url)).status == 101
        assert await joins(client, bot, first) == [{"bot", "ann"}]

    @pytest.mark.item(59)
    @pytest.mark.parametrize("first", [{}, {"id": "early"}], ids=["of nobody", "of somebody"])
    async def test_a_repeated_start_brings_nobody_until_they_speak(
        self, client: DirectLine, bot: ScriptedBot, first: dict[str, str]
    ) -> None:
        page = client.using((await client.generate()).token)
        started = await page.start(user=first)
        assert started.status == 201
        assert (await page.start(user={"id": "late"})).status == 200
        known = {"bot", *first.values()}
        assert await joins(client, bot, started, "somebody else") == [known, {"somebody else"}]
        assert (await page.send(started.conversation_id, {"type": "message", "from": {"id": "late"}})).status == 200
        assert [member["id"] for member in bot.heard(started.conversation_id)[-2]["membersAdded"]] == ["late"]

    @pytest.mark.item(60)
    @pytest.mark.parametrize("user", [{"id": "ann"}, None], ids=["bound", "unbound"])
    async def test_of_twenty_starts_at_once_one_makes_it(
        self, client: DirectLine, bot: ScriptedBot, user: dict[str, str] | None
    ) -> None:
        generated = await client.generate(user=user)
        page = client.using(generated.token)
        answers = await asyncio.gather(*(page.start() for _ in range(20)))
        assert sorted(answer.status for answer in answers) == [200] * 19 + [201]
        assert {answer.conversation_id for answer in answers} == {generated.conversation_id}
        expected = [{"bot", "ann"}] if user else [{"bot"}, {"user"}]
        assert await joins(client, bot, answers[0]) == expected

    @pytest.mark.item(69)
    async def test_an_unbound_one_cannot_claim_a_dl_user(self, client: DirectLine, bot: ScriptedBot) -> None:
        generated = await client.generate()
        page = client.using(generated.token)
        assert (await page.start(user={"id": "dl_x"})).error == (400, "BadArgument")
        assert (await page.activities(generated.conversation_id)).error == (404, "BadArgument")
        assert (await page.start(user={"id": "x_dl_"})).status == 201
        assert (await page.start(user={"id": "dl_x"})).error == (400, "BadArgument")
        assert bot.heard(generated.conversation_id) == [] or not any(
            _added(each, "dl_x") for each in bot.heard(generated.conversation_id)
        )

    async def test_a_bound_one_keeps_its_user_whatever_the_body_says(
        self, client: DirectLine, bot: ScriptedBot
    ) -> None:
        for other in ("bob", "dl_bob"):
            generated = await client.generate(user={"id": "ann", "name": "Ann"})
            started = await client.using(generated.token).start(user={"id": other, "name": "Bob"})
            assert started.status == 201
            assert (claims(started.token)["user"], claims(started.token)["name"]) == ("ann", "Ann")
            assert await joins(client, bot, started) == [{"bot", "ann"}]

    async def test_an_unbound_one_stays_unbound_whatever_the_body_says(
        self, client: DirectLine, bot: ScriptedBot
    ) -> None:
        """The page said who it is and is announced as that; nobody vouched for it (5.2)."""
        generated = await client.generate()
        started = await client.using(generated.token).start(user={"id": "bob", "name": "Bob"})
        assert "user" not in claims(started.token)
        assert await joins(client, bot, started, "bob") == [{"bot", "bob"}]
        carl = {"type": "message", "from": {"id": "carl"}, "text": "somebody else"}
        assert (await client.using(started.token).send(started.conversation_id, carl)).status == 200


class TestItsBody:
    @pytest.mark.item(61)
    async def test_may_be_what_directlinejs_sends(self, client: DirectLine) -> None:
        for credential in (SECRET, (await client.generate()).token):
            headers = {"Content-Type": "application/json", "x-requested-with": "XMLHttpRequest"}
            answer = await client.using(credential).request(
                "POST", "/conversations", data=b'{"user":{}}', headers=headers
            )
            assert answer.status == 201
            assert "user" not in claims(answer.token)

    @pytest.mark.item(62)
    async def test_gives_the_locale_to_the_bot(self, client: DirectLine, bot: ScriptedBot) -> None:
        started = await client.start(locale="de-DE")
        join = await bot.wait_for(lambda each: each.conversation_id == started.conversation_id)
        assert join.activity["type"] == "conversationUpdate"
        assert join.activity["locale"] == "de-DE"

    @pytest.mark.item(62)
    @pytest.mark.parametrize("locale", [{"x": 1}, 5, None, ["de"], True], ids=str)
    async def test_may_have_a_locale_that_is_none(self, client: DirectLine, bot: ScriptedBot, locale: object) -> None:
        started = await client.start(locale=locale)
        assert started.status == 201
        join = await bot.wait_for(lambda each: each.conversation_id == started.conversation_id)
        assert "locale" not in join.activity

    @pytest.mark.parametrize(
        "user", ["u", 5, ["u"], {"id": 5.5}, {"id": ""}, {"id": "u" * 257}], ids=lambda user: str(user)[:16]
    )
    async def test_names_its_user_properly_or_starts_nothing(self, client: DirectLine, user: object) -> None:
        generated = await client.generate()
        for credential in (SECRET, generated.token):
            assert (await client.using(credential).start(user=user)).error == (400, "BadArgument")
        assert (await client.activities(generated.conversation_id)).error == (404, "BadArgument")


class TestTheStreamUrl:
    @pytest.mark.item(63)
    async def test_has_the_scheme_that_browsers_need(self, tmp_path: Path, client: DirectLine) -> None:
        started = await client.start()
        base = client.domain.replace("http://", "ws://")
        here = f"{base}/conversations/{started.conversation_id}/stream?"
        assert started.stream_url.startswith(here)
        assert (await client.using(started.token).start()).stream_url.startswith(here)
        async with (
            Landline(tmp_path / "data", public_url="https://chat.example.org", drain_s=0) as landline,
            DirectLine(landline.directline, SECRET) as behind_tls,
        ):
            started = await behind_tls.start()
            assert started.stream_url.startswith(
                f"wss://chat.example.org/v3/directline/conversations/{started.conversation_id}/stream?"
            )

    async def test_begins_at_the_beginning_both_times(self, client: DirectLine) -> None:
        """D-25: a page that starts again gets everything, not only what comes next."""
        generated = await client.generate(user={"id": "ann"})
        first = await client.using(generated.token).start()
        sent = await client.using(first.token).send(first.conversation_id, "early")
        second = await client.using(generated.token).start()
        assert (first.status, second.status) == (201, 200)
        for answer in (first, second):
            assert parameter(answer.stream_url, "watermark") == "0"
            async with client.stream(answer.stream_url) as stream:
                assert (await stream.next_activity())["id"] == sent.json["id"]

    async def test_holds_neither_token_nor_user(self, client: DirectLine) -> None:
        """It stands in the logs of proxies (7.2)."""
        started = await client.start(user={"id": "dl_somebody_of_name"})
        assert started.token not in started.stream_url
        assert "somebody" not in started.stream_url
        assert "." not in (parameter(started.stream_url, "t") or ".")


class TestTheBot:
    @pytest.mark.item(64)
    @pytest.mark.parametrize("how", ["is down", "hangs"])
    async def test_is_not_waited_for(self, client: DirectLine, bot: ScriptedBot, how: str) -> None:
        if how == "is down":
            await bot.refuse()
        else:
            bot.hang()
        generated = await client.generate()
        async with asyncio.timeout(2):
            first = await client.start()
            second = await client.using(generated.token).start()
        assert (first.status, second.status) == (201, 201)
        async with asyncio.timeout(2):
            assert (await client.using(generated.token).start()).status == 200
            assert (await client.activities(first.conversation_id)).status == 200

    async def test_that_rejects_the_join_changes_nothing(self, client: DirectLine, bot: ScriptedBot) -> None:
        bot.answer(500)
        started = await client.start()
        assert started.status == 201
        await bot.wait_for(lambda each: each.conversation_id == started.conversation_id)
        bot.answer()
        assert await joins(client, bot, started) == [{"bot"}, {"user"}]

    async def test_hears_of_the_start_when_it_comes_up(self, client: DirectLine, bot: ScriptedBot) -> None:
        """A join that reached nobody stays due (6.4)."""
        await bot.refuse()
        started = await client.start(user={"id": "ann"})
        await bot.accept()
        assert await joins(client, bot, started) == [{"bot", "ann"}]

    @pytest.mark.item(65)
    async def test_is_heard_from_the_first_word(self, client: DirectLine, bot: ScriptedBot) -> None:
        bot.on_activity = greet
        started = await client.start()
        await until_logged(client, started.conversation_id, "welcome")
        async with client.stream(started.stream_url) as stream:
            assert (await stream.next_activity())["text"] == "welcome"
            await client.send(started.conversation_id, "hello")
            assert (await stream.next_activity())["text"] == "hello"

    @pytest.mark.item(66)
    async def test_is_heard_by_the_browser_though_a_backend_started(self, client: DirectLine, bot: ScriptedBot) -> None:
        bot.on_activity = greet
        generated = await client.generate(user={"id": "ann"})
        backend = await client.using(generated.token).start()
        assert backend.status == 201
        await until_logged(client, backend.conversation_id, "welcome")
        for token in (backend.token, generated.token):
            browser = await client.using(token).start()
            assert browser.status == 200
            async with client.stream(browser.stream_url) as stream:
                assert (await stream.next_activity())["text"] == "welcome"
        welcomes = [each for each in await client.all_activities(backend.conversation_id) if each["text"] == "welcome"]
        assert len(welcomes) == 1


class TestJoins:
    @pytest.mark.item(70)
    @pytest.mark.parametrize("known_by", ["the token", "the secret's body", "the body beside an unbound token"])
    async def test_a_known_user_comes_with_the_bot(self, client: DirectLine, bot: ScriptedBot, known_by: str) -> None:
        ann = {"id": "ann", "name": "Ann"}
        if known_by == "the token":
            started = await client.using((await client.generate(user=ann)).token).start()
        elif known_by == "the secret's body":
            started = await client.start(user=ann)
        else:
            started = await client.using((await client.generate()).token).start(user=ann)
        assert await joins(client, bot, started, "ann") == [{"bot", "ann"}]
        join = bot.heard(started.conversation_id)[0]
        assert len(join["membersAdded"]) == 2
        assert ann in [{name: member.get(name) for name in ann} for member in join["membersAdded"]]
        assert "membersRemoved" not in join

    @pytest.mark.item(71)
    async def test_an_unknown_user_comes_before_his_first_activity(self, client: DirectLine, bot: ScriptedBot) -> None:
        started = await client.start()
        id_ = started.conversation_id
        first = await bot.wait_for(lambda each: each.conversation_id == id_)
        assert [member["id"] for member in first.activity["membersAdded"]] == ["bot"]
        for user in ("ann", "bob"):
            for text in ("one", "two"):
                message = {"type": "message", "from": {"id": user, "name": user.title()}, "text": f"{user} {text}"}
                assert (await client.send(id_, message)).status == 200
        told = [
            each["text"] if each["type"] == "message" else [member["id"] for member in each["membersAdded"]]
            for each in bot.heard(id_)
        ]
        assert told == [["bot"], ["ann"], "ann one", "ann two", ["bob"], "bob one", "bob two"]

    @pytest.mark.item(71)
    async def test_the_activity_waits_until_the_bot_has_answered_the_join(
        self, client: DirectLine, bot: ScriptedBot
    ) -> None:
        """And the join is not doubled by ten activities that wait for it."""
        started = await client.start()
        id_ = started.conversation_id
        await bot.wait_for(lambda each: each.conversation_id == id_)
        bot.hang()
        sends = [asyncio.create_task(client.send(id_, f"word {n}")) for n in range(10)]
        await bot.wait_for(lambda each: each.conversation_id == id_ and _added(each.activity, "user"))
        async with asyncio.timeout(DEADLINE_S):
            while len(await client.all_activities(id_)) < 10:
                await asyncio.sleep(0.01)
        assert [each["type"] for each in bot.heard(id_)] == ["conversationUpdate"] * 2
        bot.release()
        assert {answer.status for answer in await asyncio.gather(*sends)} == {200}
        assert [each["type"] for each in bot.heard(id_)] == ["conversationUpdate"] * 2 + ["message"] * 10

    @pytest.mark.item(72)
    async def test_are_seen_by_no_client(self, client: DirectLine, bot: ScriptedBot) -> None:
        """Nor those that a client sends itself; and they take no number: the first message is number 0 (6.3)."""
        started = await client.start(user={"id": "ann"})
        page, id_ = client.using(started.token), started.conversation_id
        async with client.stream(started.stream_url) as stream:
            update = {"type": "conversationUpdate", "membersAdded": [{"id": "somebody"}]}
            assert (await page.send(id_, update)).status == 200
            bob = {"type": "message", "from": {"id": "bob"}, "text": "hello"}
            assert (await client.send(id_, bob)).json["id"] == f"{id_}|0000000"
            await stream.until_text("hello")
            assert [each["type"] for each in stream.activities] == ["message"]
        async with client.stream(edited(started.stream_url, watermark=None)) as stream:
            await stream.until_text("hello")
            assert [each["type"] for each in stream.activities] == ["message"]
        assert [each["type"] for each in await client.all_activities(id_)] == ["message"]
        assert [each["type"] for each in bot.heard(id_)].count("conversationUpdate") == 3
