"""The commands of operators: beside a running server, and where none runs. They must not differ.

They run within this process where only what they print is looked at, since to start Python costs more than they do."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from landline.cli import main
from landline.conformance.directline import DirectLine, claims
from landline.conformance.scripted_bot import ScriptedBot
from landline.server.certificates import fingerprint, make_certificate
from support.landline import SECRET, Landline, free_port

LANDLINE = [sys.executable, "-m", "landline"]
DEADLINE_S = 30
MARK = "The new secret. It is shown only now, and kept nowhere in readable form:\n"


class Operator:
    """Types commands about one data directory."""

    def __init__(self, data: Path, **variables: str) -> None:
        self.data = data
        not_ours: dict[str, str | None] = {name: None for name in os.environ if name.startswith("LANDLINE_")}
        self.environment = not_ours | variables

    async def run(self, *words: str, typed: str | None = None) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command. `typed` is what a person answers."""
        arguments = [*words, "--data", str(self.data)]
        # In a thread: it has an event loop of its own, and the servers of a test live on ours.
        done = await asyncio.to_thread(CliRunner().invoke, main, arguments, env=self.environment, input=typed)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    async def process(self, *words: str) -> tuple[int, str, str]:
        """The same of a process, as a script meets it."""
        ours = {name: value for name, value in os.environ.items() if name not in self.environment}
        process = await asyncio.create_subprocess_exec(
            *LANDLINE,
            *words,
            "--data",
            str(self.data),
            env=ours | {name: value for name, value in self.environment.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        assert process.returncode is not None
        assert b"Traceback" not in err, err
        return process.returncode, out.decode(), err.decode()

    async def do(self, *words: str) -> str:
        """What a command prints that has nothing to complain about."""
        code, out, err = await self.run(*words)
        assert code == 0, (words, err)
        assert err in ("", MARK)
        assert out, (words, "says nothing")
        return out

    async def refused(self, code: int, *words: str) -> str:
        """The one line with which a command ends that is refused with this exit code."""
        ended, out, err = await self.run(*words)
        assert (ended, out) == (code, ""), (words, err)
        (line,) = err.splitlines()
        assert line.startswith("landline: ")
        return line.removeprefix("landline: ")

    async def json(self, *words: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(await self.do(*words, "--json"))


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Landline]:
    async with Landline(tmp_path / "data", drain_s=0) as landline:
        yield landline


@pytest.fixture(params=["served", "unserved"])
async def operator(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Operator]:
    """One beside a server, and one on the directory of a server that was stopped."""
    async with Landline(tmp_path / "data", drain_s=0) as landline:
        if request.param == "unserved":
            await landline.terminate()
        yield Operator(landline.data)


async def test_bots_and_sites_come_change_and_go(operator: Operator) -> None:
    endpoint = "http://127.0.0.1:1/api/messages"
    assert await operator.do("bot", "add", "second", "--endpoint", endpoint, "--concurrency", "3") == (
        "Registered the bot 'second'. To let people talk to it: landline site add SITE second\n"
    )
    secret = (await operator.do("site", "add", "web", "second", "--token-ttl-s", "900")).strip()
    assert len(secret) >= 43
    await operator.do("site", "change", "web", "--trusted-origins", "https://a.example, https://b.example:443/")
    assert await operator.do("site", "change", "web", "--enhanced-authentication", "--token-ttl-s", "15m") == (
        "enhanced_authentication: false -> true\n"
    )
    assert await operator.do("bot", "change", "second", "--name", "Number Two") == "name: Bot -> Number Two\n"
    assert "already" in await operator.do("bot", "change", "second", "--name", "Number Two")
    assert {each["id"]: each["read_only"] for each in await operator.json("bot", "list")} == {
        "bot": True,
        "second": False,
    }
    (web,) = await operator.json("site", "list", "--of", "second")
    assert {name: web[name] for name in ("id", "bot_id", "trusted_origins", "token_ttl_s", "read_only")} == {
        "id": "web",
        "bot_id": "second",
        "trusted_origins": ["https://a.example", "https://b.example"],
        "token_ttl_s": 900,
        "read_only": False,
    }
    rows = [line.split() for line in (await operator.do("site", "list")).splitlines()]
    assert rows[0][:3] == ["ID", "BOT", "STATE"]
    assert ["web", "second", "enabled", f"1:{web['secrets'][0]['ski']}", "store"] in rows
    assert "Number Two" in await operator.do("bot", "list")
    assert await operator.do("site", "disable", "web") == "The site 'web' is disabled.\n"
    assert "disabled" in await operator.do("site", "list")
    assert await operator.do("site", "enable", "web") == "The site 'web' is enabled.\n"
    assert await operator.do("site", "remove", "web", "--yes") == "Deleted the site 'web' of the bot 'second'.\n"
    await operator.do("site", "add", "app", "second")
    what = "the bot 'second' and its 1 site: app.\n"
    assert await operator.do("bot", "remove", "second", "--dry-run") == f"Would delete {what}"
    assert await operator.do("bot", "remove", "--yes", "second") == f"Deleted {what}"
    assert [each["id"] for each in await operator.json("bot", "list")] == ["bot"]
    assert [each["id"] for each in await operator.json("site", "list")] == ["default"]


async def test_secrets_are_printed_once_and_alone(operator: Operator) -> None:
    made = [await operator.do("site", "add", "web", "bot")]
    for words in (("rotate", "web", "--key", "2"), ("rotate", "web"), ("revoke", "web", "--key", "2")):
        made.append(await operator.do("secret", *words))
    assert len({*made}) == 4
    assert all(len(text.splitlines()) == 1 for text in made)
    before = await operator.json("site", "list")
    await operator.do("secret", "remove", "web", "--key", "2")
    (web,) = (each for each in await operator.json("site", "list") if each["id"] == "web")
    assert [each["key"] for each in web["secrets"]] == [1]
    assert len(web["former"]) == 2
    assert len(web["revoked"]) == 1
    await operator.do("secret", "revoke", "web", "--ski", web["former"][0]["ski"])
    shown = json.dumps(before) + json.dumps(await operator.json("site", "list"))
    assert not any(text.strip() in shown for text in made)


async def test_service_keys_are_renewed_by_their_marks(operator: Operator) -> None:
    assert len((await operator.do("bot", "new-key", "bot")).split()) == 1
    newer, oldest = (await operator.do("bot", "new-key", "bot")).split()
    await operator.do("bot", "remove-key", "bot", oldest)
    (bot,) = await operator.json("bot", "list")
    assert [each["mark"] for each in bot["service_keys"]][1:] == [newer]
    await operator.refused(1, "bot", "remove-key", "bot", bot["service_keys"][0]["mark"])


async def test_an_id_that_begins_with_a_hyphen_is_no_option(running: Landline) -> None:
    """Also where it looks like one, as `-h` and what it could be short for do."""
    operator = Operator(running.data)
    await operator.do("bot", "add", "-helper", "--name=-x", "--concurrency", "3")
    await operator.do("bot", "change", "--name", "-h", "-helper")
    (bot,) = [each for each in await operator.json("bot", "list") if each["id"] == "-helper"]
    assert (bot["name"], bot["concurrency"]) == ("-h", 3)
    await operator.do("site", "add", "--jsonpath", "-helper")
    assert claims((await operator.do("token", "--user", "-u", "--jsonpath")).strip())["user"] == "-u"
    assert await operator.do("forget", "-u", "--yes") == "Deleted 0 conversations in which '-u' took part.\n"
    assert await operator.refused(1, "delete", "-h-hhhhhhhh") == "Unknown conversation (404)"
    assert "(404)" in await operator.refused(1, "redeliver", "-h-hhhhhhhh|0000001")
    assert "Usage: " in await operator.do("delete", "some-conversation", "-h")


async def test_what_is_refused_says_so_in_one_line_and_ends_with_1(operator: Operator) -> None:
    assert await operator.refused(1, "site", "enable", "nowhere") == "Unknown site (404)"
    assert await operator.refused(1, "site", "add", "web", "nobody") == "Unknown bot (404)"
    assert await operator.refused(1, "site", "add", "default", "bot") == "The id is taken (409)"
    assert "settings" in await operator.refused(1, "bot", "remove", "bot", "--yes")
    assert "settings" in await operator.refused(1, "site", "change", "default", "--token-ttl-s", "60")
    assert "malformed" in await operator.refused(1, "site", "add", "web", "bot", "--trusted-origins", "example.org")
    assert await operator.refused(1, "secret", "revoke", "default", "--key", "2") == "Unknown key (404)"


@pytest.mark.parametrize(
    "words",
    [
        ("bot", "add"),
        ("bot", "add", "x", "--endpoint", "nowhere"),
        ("bot", "add", "x", "--concurrency", "0"),
        ("bot", "add", "x", "--sdk", "agents-python"),
        ("bot", "add", "x", "--app-id", "x", "--sdk", "agents-perl"),
        ("site", "add", "x", "bot", "--token-ttl-s", "soon"),
        ("site", "add", "x", "bot", "--enhanced-authentication", "perhaps"),
        ("secret", "rotate", "default", "--key", "3"),
        ("secret", "rotate", "default", "--secret", "x"),
        ("bot", "add", "x", "--concurency=5"),
        ("token", "--at", "http://127.0.0.1:1"),
    ],
)
async def test_bad_usage_ends_with_2_and_asks_nobody(tmp_path: Path, words: tuple[str, ...]) -> None:
    code, out, err = await Operator(tmp_path / "data").run(*words)
    assert (code, out) == (2, "")
    assert "Error: " in err
    assert not (tmp_path / "data").exists()


async def test_what_stands_in_the_query_of_an_endpoint_is_for_those_who_ask_for_everything(
    operator: Operator,
) -> None:
    await operator.do("bot", "add", "second", "--endpoint", "http://127.0.0.1:1/api/messages?code=abc")
    shown = await operator.do("bot", "list")
    assert "http://127.0.0.1:1/api/messages?***  store" in shown
    assert "abc" not in shown
    endpoints = {each["id"]: each["endpoint"] for each in await operator.json("bot", "list")}
    assert endpoints == {"bot": None, "second": "http://127.0.0.1:1/api/messages?code=abc"}


async def test_a_token_is_made_where_a_server_runs_and_where_none_does(tmp_path: Path) -> None:
    operator = Operator(tmp_path / "data")
    async with ScriptedBot() as bot, Landline(operator.data, bot=bot.endpoint, secret=None, drain_s=0) as landline:
        secret = (operator.data / "first-secret").read_text().strip()
        tokens = [(await operator.do("token", "--user", "dl_ann", "--name", "Ann")).strip()]
        await landline.terminate()
        tokens.append((await operator.json("token", "default", "--user", "dl_ann", "--name", "Ann"))["token"])
        await landline.start()
        landline_operator = Operator(operator.data, LANDLINE_SECRET=secret)
        tokens.append(
            (await landline_operator.do("token", "--at", landline.url, "--user", "dl_ann", "--name", "Ann")).strip()
        )
        async with DirectLine(landline.directline) as client:
            for token in tokens:
                said = claims(token)
                assert (said["user"], said["name"], said["site"]) == ("dl_ann", "Ann", "default")
                assert (await client.using(token).start()).status == 201
            # They descend from the secret, and go with it.
            await operator.do("secret", "revoke", "default")
            for token in tokens:
                assert (await client.using(token).refresh()).error == (403, "BadArgument")


async def test_a_token_for_nobodys_secret_is_none(tmp_path: Path) -> None:
    async with Landline(tmp_path / "data", drain_s=0) as landline:
        operator = Operator(landline.data)
        assert len((await operator.do("token")).split(".")) == 3
        await landline.terminate()
        # The secret of the environment is the server's, and this process has another one.
        assert "no secret" in await operator.refused(1, "token")


async def test_what_is_changed_while_no_server_runs_holds_in_the_next(tmp_path: Path) -> None:
    async with ScriptedBot() as bot, Landline(tmp_path / "data", drain_s=0) as landline:
        await landline.terminate()
        operator = Operator(landline.data)
        await operator.do("bot", "add", "second", "--endpoint", bot.endpoint)
        secret = (await operator.do("site", "add", "web", "second")).strip()
        await landline.start()
        async with DirectLine(landline.directline, secret) as client:
            started = await client.start()
            await bot.wait_for(lambda each: each.conversation_id == started.conversation_id)
        assert secret not in landline.log


async def test_a_directory_without_a_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """Neither by asking nor by telling: what is in no store is served by nobody (ADR 33)."""
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        for words in (("bot", "list"), ("site", "list"), ("site", "add", "web", "bot"), ("forget", "ann", "--yes")):
            line = await Operator(tmp_path / name).refused(3, *words)
            assert line == f"{tmp_path / name}: there is no store; landline serve makes it"
    assert not (tmp_path / "nowhere").exists()
    assert list((tmp_path / "empty").iterdir()) == []


async def test_the_credential_is_the_owners_and_the_same_after_a_restart(running: Landline) -> None:
    file = running.data / "admin-secret"
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_text()
    assert len(before.strip()) >= 43
    assert (running.data / "address").read_text() == running.url
    await running.restart(kill=True)
    assert file.read_text() == before
    assert before.strip() not in running.log
    await running.terminate()
    assert not (running.data / "address").exists()
    await running.start()


async def test_after_a_kill_the_credential_is_shown_to_nobody_who_listens_there_now(running: Landline) -> None:
    """The address stays behind, and the port may belong to somebody else by now."""
    await running.kill()
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", running.port):
        assert "default" in await Operator(running.data).do("site", "list")
    assert heard == []
    await running.start()


async def test_a_credential_of_the_settings_is_taken_from_the_environment(tmp_path: Path) -> None:
    secret = "an-admin-secret-of-the-environment"
    async with Landline(tmp_path / "data", environment={"LANDLINE_ADMIN_SECRET": secret}, drain_s=0) as landline:
        assert not (landline.data / "admin-secret").exists()
        assert "default" in await Operator(landline.data, LANDLINE_ADMIN_SECRET=secret).do("site", "list")
        wrong = Operator(landline.data, LANDLINE_ADMIN_SECRET=secret + "x")
        assert await wrong.refused(1, "site", "list") == "Invalid admin credential (403)"


async def test_a_directory_that_is_in_use_by_who_serves_nobody_is_said_to_be(running: Landline) -> None:
    (running.data / "address").unlink()
    line = await Operator(running.data).refused(3, "site", "list")
    assert "in use by another process" in line


async def test_a_server_that_is_gone_from_its_address_is_named(running: Landline) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    (running.data / "address").write_text(address)
    line = await Operator(running.data).refused(1, "site", "list")
    assert line.startswith(f"{address}/admin/sites: ")


async def test_config_and_environment_of_the_server_are_those_of_the_commands(tmp_path: Path) -> None:
    file = tmp_path / "landline.toml"
    file.write_text(f'data = "{tmp_path / "data"}"\n[[bots]]\nid = "named"\n')
    async with Landline(tmp_path / "data", drain_s=0):
        pass
    operator = Operator(tmp_path / "data")
    for words, variables in ((("--config", str(file)), {}), ((), {"LANDLINE_CONFIG": str(file)})):
        there = Operator(tmp_path / "data", **variables)
        assert [(each["id"], each["read_only"]) for each in await there.json("bot", "list", *words)] == [
            ("named", True)
        ]
    assert [each["id"] for each in await operator.json("bot", "list")] == ["bot"]


async def test_app_ids_and_their_secrets_are_exchanged(operator: Operator) -> None:
    first = await operator.do("bot", "add", "second", "--app-id", "an-app")
    second = await operator.do("bot", "secret", "second", "--key", "2")
    assert all(len(text.splitlines()) == 1 and len(text) > 43 for text in (first, second))
    (bot,) = (each for each in await operator.json("bot", "list") if each["id"] == "second")
    assert bot["app_id"] == "an-app"
    assert [each["key"] for each in bot["app_secrets"]] == [1, 2]
    await operator.do("bot", "remove-secret", "second")
    assert await operator.refused(1, "bot", "remove-secret", "second")
    assert "has no app id" in await operator.refused(1, "bot", "secret", "bot")
    shown = json.dumps(await operator.json("bot", "list"))
    assert not any(text.strip() in shown for text in (first, second))
    assert "has no app id" in await operator.refused(1, "bot", "settings", "bot", "agents-js")


async def test_a_bot_is_told_of_the_server_as_it_runs_and_not_of_the_commands_settings(tmp_path: Path) -> None:
    """6.3: the address and the name that bots know the server by may be flags of its own."""
    base, issuer = "https://landline.internal:8443/bots", "https://issuer.example"
    operator = Operator(tmp_path / "data")
    async with Landline(operator.data, service_url=f"{base}/", issuer=issuer, drain_s=0) as landline:
        told = await operator.do("bot", "add", "second", "--app-id", "an-app", "--sdk", "botbuilder-python")
        assert f'TO_CHANNEL_FROM_BOT_LOGIN_URL = "{base}/adfs"\n' in told
        assert f'TO_BOT_FROM_CHANNEL_TOKEN_ISSUER = "{issuer}"\n' in told
        agents = await operator.do("bot", "settings", "second", "agents-js")
        assert f"authorityEndpoint={base}/adfs\n" in agents
        assert f"issuers={issuer}\n" in agents
        await landline.terminate()
        # No server runs that could say it, so it is as the settings have it.
        line = await operator.refused(1, "bot", "settings", "second", "agents-js")
        assert line.startswith("Start the server first, or name its service_url")
        named = Operator(operator.data, LANDLINE_SERVICE_URL="https://named.example")
        assert "authorityEndpoint=https://named.example/adfs\n" in await named.do(
            "bot", "settings", "second", "agents-js"
        )
        await landline.start()


async def test_a_signing_key_is_rotated_once_at_a_time(operator: Operator) -> None:
    before = (await operator.do("signing-key", "list")).splitlines()
    assert len(before) == 2
    rotated = (await operator.do("signing-key", "rotate")).splitlines()
    assert (await operator.do("signing-key", "rotate")).splitlines() == rotated
    assert (await operator.do("signing-key", "list")).splitlines() == [*before, rotated[1]]


async def test_a_signing_key_that_leaked_is_withdrawn(operator: Operator) -> None:
    heads, leaked = (await operator.do("signing-key", "list")).splitlines()
    kid = leaked.split()[0]
    left = (await operator.do("signing-key", "withdraw", kid)).splitlines()
    assert left[0] == heads
    assert len(left) == 2
    assert kid not in left[1]
    assert (await operator.do("signing-key", "list")).splitlines() == left
    assert await operator.refused(1, "signing-key", "withdraw", kid) == "Unknown key (404)"


async def test_a_bot_is_added_with_everything_that_its_sdk_has_to_be_told(tmp_path: Path) -> None:
    server = Landline(tmp_path / "data", drain_s=0)
    async with server as landline:
        operator = Operator(landline.data)
        code, printed, warned = await operator.run(
            "bot", "add", "second", "--app-id", "an-app", "--sdk", "agents-python"
        )
        assert code == 0
        assert f"landline: {landline.url} is not https, and the library by which agents-python fetches" in warned
        said = dict(line.partition("=")[::2] for line in printed.splitlines())
        secret = said.pop("CONNECTIONS__SERVICE_CONNECTION__SETTINGS__CLIENTSECRET")
        form = {"grant_type": "client_credentials", "client_id": "an-app", "client_secret": secret}
        url = said["CONNECTIONS__SERVICE_CONNECTION__SETTINGS__AUTHORITY"] + "/oauth2/v2.0/token"
        async with aiohttp.ClientSession() as session, session.post(url, data=form) as answer:
            assert answer.status == 200, "the secret and the address are good"
        again = await operator.run("bot", "settings", "second", "agents-python")
        assert again == (0, printed.replace(secret, "THE-APP-SECRET"), warned)


async def test_a_bot_on_a_host_that_is_not_allowed_is_not_added(tmp_path: Path) -> None:
    server = Landline(tmp_path / "data", bot_allowed_hosts="bot.internal,*.bots.example", drain_s=0)
    async with server as landline:
        operator = Operator(landline.data)
        line = await operator.refused(1, "bot", "add", "second", "--endpoint", "http://169.254.169.254/latest")
        assert line == "'endpoint' is on a host that is not one of bot_allowed_hosts (400)"
        assert [each["id"] for each in await operator.json("bot", "list")] == ["bot"]
        await operator.do("bot", "add", "second", "--endpoint", "https://a.bots.example/api/messages")
        await operator.refused(1, "bot", "change", "second", "--endpoint", "http://127.0.0.1:3978/api/messages")
        await operator.do("bot", "change", "second", "--endpoint", "http://bot.internal/api/messages")
        (bot,) = (each for each in await operator.json("bot", "list") if each["id"] == "second")
        assert bot["endpoint"] == "http://bot.internal/api/messages"


async def test_a_server_that_speaks_tls_is_asked_and_nobody_in_its_place(tmp_path: Path) -> None:
    """By its certificate alone: it need not be good for the address, nor for anybody else."""
    now = dt.datetime.now(dt.UTC)
    tls, other = (make_certificate(tmp_path / name, ("chat.example",), now) for name in ("tls", "other"))
    address = tmp_path / "data" / "address"
    server = Landline(tmp_path / "data", tls=tls, drain_s=0)
    server.trust = False  # chat.example is nobody on this machine
    async with server as landline:
        operator = Operator(landline.data)
        await operator.do("bot", "add", "second", "--app-id", "an-app")
        printed = await operator.do("bot", "settings", "second", "botbuilder-js")
        assert f"ToBotFromChannelTokenIssuer={landline.url}\n" in printed
        address.write_text(f"{landline.url} {fingerprint(other.certificate)}")
        line = await operator.refused(1, "bot", "list")
        assert landline.url in line


async def test_what_a_bot_did_not_take_is_shown_and_offered_again(tmp_path: Path) -> None:
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await client.start(user={"id": "ann"})).conversation_id
        bot.answer(500)
        assert (await client.send(conversation_id, "do it")).status == 502
        operator = Operator(landline.data)
        heads, row = (await operator.do("redeliver")).splitlines()
        assert heads.split() == ["ACTIVITY", "BOT", "LAST", "ATTEMPTS", "STATUS", "REASON"]
        activity, bot_id, _, attempts, status, *_ = row.split()
        assert (activity, bot_id, attempts, status) == (f"{conversation_id}|0000000", "bot", "1", "500")
        assert "returned an error" in await operator.refused(1, "redeliver", activity)
        await landline.terminate()
        (failure,) = await operator.json("redeliver")
        assert (failure["activity"], failure["attempts"]) == (activity, 2)
        assert "No server runs here" in await operator.refused(1, "redeliver", activity)
        await landline.start()
        bot.answer()
        assert await operator.do("redeliver", activity) == f"The bot has taken {activity}.\n"
        assert bot.messages[-1].text == "do it"
        assert await operator.json("redeliver") == []
        for words in (("redeliver",), ("delete", "--yes")):
            assert "Unknown" in await operator.refused(1, *words, "-1DtVPKu-grl|0000000"), "an id may begin so"
        assert "Unknown" in await operator.refused(1, "bot", "remove-key", "bot", "-1DtVPKu-grl")


async def test_what_cannot_be_undone_asks_and_says_what_it_has_done(tmp_path: Path) -> None:
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        operator = Operator(landline.data)
        first, second = [(await client.start(user={"id": "dl_ann"})).conversation_id for _ in range(2)]
        for conversation_id in (first, second):
            said = {"type": "message", "text": "hello", "from": {"id": "dl_ann"}}
            assert (await client.send(conversation_id, said)).status == 200
        theirs = "2 conversations in which 'dl_ann' took part"
        for words, what in (
            (("delete", first), f"the conversation {first} of dl_ann with the bot 'bot', 1 activity"),
            (("forget", "dl_ann"), theirs),
        ):
            assert await operator.do(*words, "--dry-run") == f"Would delete {what}.\n"
            code, out, err = await operator.process(*words)
            assert (code, out) == (2, ""), "nobody can be asked here"
            assert f"--yes deletes {what}" in err
        assert (await client.activities(first)).status == 200
        await operator.do("delete", first, "--yes")
        assert (await client.activities(first)).status == 404
        assert await operator.do("forget", "dl_ann", "--yes") == (
            "Deleted 1 conversation in which 'dl_ann' took part.\n"
        )
        assert (await client.activities(second)).status == 404


async def test_app_ids_are_listed(operator: Operator) -> None:
    await operator.do("bot", "add", "second", "--app-id", "an-app")
    heads, *rows = (await operator.do("bot", "list")).splitlines()
    assert heads.split() == ["ID", "NAME", "APP", "ID", "ENDPOINT", "NAMED", "IN"]
    assert ["second", "Bot", "an-app", "-", "store"] in [row.split() for row in rows]


async def test_exit_codes_are_those_of_the_process(running: Landline, tmp_path: Path) -> None:
    operator = Operator(running.data)
    assert (await operator.process("site", "list"))[0] == 0
    assert (await operator.process("site", "enable", "nowhere"))[0] == 1
    assert (await operator.process("site", "enable"))[0] == 2
    assert (await Operator(tmp_path / "nowhere").process("site", "list"))[0] == 3


async def test_a_misspelt_variable_is_warned_of_on_standard_error(running: Landline) -> None:
    code, out, err = await Operator(running.data, LANDLINE_BOT_ALOWED_HOSTS="bot.internal").run("site", "list")
    assert code == 0
    assert "default" in out
    assert err == (
        "landline: LANDLINE_BOT_ALOWED_HOSTS is no setting, and has no effect: "
        "did you mean LANDLINE_BOT_ALLOWED_HOSTS?\n"
    )
