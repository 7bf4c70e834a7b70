"""SIGHUP: the certificate, the secrets of the settings and the level of the log are taken over; nobody is dropped."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from landline.config import BotTable, Settings, SiteTable
from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.server.certificates import Files, fingerprint, make_certificate
from landline.server.reload import waiting_for_restart
from support.landline import Landline, free_port

OLD, NEW = "the-first-secret-0123456789abcdef", "the-second-secret-0123456789abcdef"
OLD_ADMIN, NEW_ADMIN = "the-first-admin-0123456789abcdef", "the-second-admin-0123456789abcdef"
OLD_APP, NEW_APP = "the-first-app-secret-0123456789", "the-second-app-secret-0123456789"
APP_ID = "11111111-2222-4333-8444-555555555555"
DEADLINE_S = 60

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def told(landline: Landline, times: int = 1) -> None:
    """Read the settings again, and have done so."""
    before = landline.log.count("settings read again")
    for _ in range(times):
        os.kill(landline.pid, signal.SIGHUP)
    await until(lambda: landline.log.count("settings read again") > before)


def shown(landline: Landline) -> str:
    """The certificate that somebody sees who connects now."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", landline.port), timeout=DEADLINE_S) as plain,
        context.wrap_socket(plain) as wrapped,
    ):
        certificate = wrapped.getpeercert(binary_form=True)
        assert certificate is not None
        return ssl.DER_cert_to_PEM_cert(certificate)


async def test_another_certificate_is_shown_and_streams_go_on(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    files = make_certificate(tmp_path / "tls", ("127.0.0.1",), now)
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, tls=files, drain_s=0) as landline,
        DirectLine(landline.directline, landline.secret, tls=landline.trust) as client,
    ):
        opened = (await client.start()).json
        async with client.stream(opened["streamUrl"]) as stream:
            before = shown(landline)
            make_certificate(tmp_path / "tls", ("127.0.0.1",), now)
            assert shown(landline) == before
            await told(landline, times=3)
            after = shown(landline)
            assert after != before
            # Where the commands of this machine look whom they talk to.
            assert (landline.data / "address").read_text().split()[1] == fingerprint(files.certificate)
            files.key.write_text("no key")
            await told(landline)
            assert shown(landline) == after
            assert "the certificate was not loaded again" in landline.log
            assert (await client.send(opened["conversationId"], "still here")).status == 200
            await stream.until(lambda stream: len(stream.activities) == 1, "sees it")
        make_certificate(tmp_path / "tls", ("127.0.0.1",), now)  # for the restart
        assert await landline.terminate() == 0


def written(path: Path, secret: str, admin: str, app: str, more: str = "") -> Path:
    path.write_text(f"""
admin_secret = "{admin}"
{more}
[[bots]]
id = "bot"
app_id = "{APP_ID}"
app_secret = ["{app}"]
[[bots.sites]]
id = "web"
secret = "{secret}"
""")
    return path


async def statuses(landline: Landline, secret: str, admin: str, app: str) -> list[int]:
    """Of a start, a call of the admin API and a bot's call for a token."""
    grant = {"grant_type": "client_credentials", "client_id": APP_ID, "client_secret": app}
    scope = {"scope": "https://api.botframework.com/.default"}
    asked = []
    async with aiohttp.ClientSession() as session:
        for path, bearer, form in (
            ("/v3/directline/conversations", secret, None),
            ("/admin/bots", admin, None),
            ("/oauth2/v2.0/token", "", grant | scope),
        ):
            method = "GET" if path.startswith("/admin") else "POST"
            headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
            async with session.request(method, f"{landline.url}{path}", headers=headers, data=form) as answer:
                asked.append(answer.status)
    return asked


async def test_secrets_of_the_file_are_read_again_and_nobody_is_dropped(tmp_path: Path) -> None:
    config = written(tmp_path / "landline.toml", OLD, OLD_ADMIN, OLD_APP)
    landline = Landline(tmp_path / "data", secret=None, config=config, drain_s=0)
    async with landline, DirectLine(landline.directline, OLD) as client:
        assert await statuses(landline, OLD, OLD_ADMIN, OLD_APP) == [201, 200, 200]
        opened = (await client.start()).json
        async with client.stream(opened["streamUrl"]) as stream:
            written(config, NEW, NEW_ADMIN, NEW_APP, "token_ttl_s = 900\npolls_per_s = 7")
            await told(landline)
            assert await statuses(landline, NEW, NEW_ADMIN, NEW_APP) == [201, 200, 200]
            assert await statuses(landline, OLD, OLD_ADMIN, OLD_APP) == [403, 403, 401]
            assert "need a restart" in landline.log
            assert "token_ttl_s" in landline.log
            # Tokens of the former secret live on, and so do their streams.
            async with DirectLine(landline.directline, opened["token"]) as page:
                await page.send(opened["conversationId"], "still here")
                await stream.until(lambda stream: len(stream.activities) == 1, "sees it")
            config.write_text("no toml")
            os.kill(landline.pid, signal.SIGHUP)
            await until(lambda: "the settings were not read again" in landline.log)
            assert await statuses(landline, NEW, NEW_ADMIN, NEW_APP) == [201, 200, 200]
        for secret in (OLD, NEW, OLD_ADMIN, NEW_ADMIN, OLD_APP, NEW_APP):
            assert secret not in landline.log
        written(config, NEW, NEW_ADMIN, NEW_APP)


async def test_the_level_of_the_log_changes_both_ways(tmp_path: Path) -> None:
    config = tmp_path / "landline.toml"
    config.write_text("")
    async with (
        Landline(tmp_path / "data", config=config, drain_s=0) as landline,
        DirectLine(landline.directline, landline.secret) as client,
    ):

        async def operation() -> str:
            """What names a request in the log."""
            return (await client.start()).headers["X-Correlating-OperationId"]

        first = await operation()
        await until(lambda: first in landline.log)
        config.write_text('log_level = "error"')
        await told(landline)
        silent = await operation()
        config.write_text('log_level = "info"')
        os.kill(landline.pid, signal.SIGHUP)
        await until(lambda: "log level changed" in landline.log)
        last = await operation()
        await until(lambda: last in landline.log)
        assert silent not in landline.log


async def test_what_the_environment_says_wins_as_at_the_start(tmp_path: Path) -> None:
    config = tmp_path / "landline.toml"
    config.write_text(f'admin_secret = "{OLD_ADMIN}"')
    landline = Landline(tmp_path / "data", secret=OLD, config=config, drain_s=0)
    async with landline, DirectLine(landline.directline, OLD) as client:
        config.write_text(f'admin_secret = "{NEW_ADMIN}"\nsecret = "{NEW}"')
        await told(landline)
        assert (await client.start()).status == 201
        async with DirectLine(landline.directline, NEW) as stranger:
            assert (await stranger.start()).status == 403


async def test_the_demo_lives_on(tmp_path: Path) -> None:
    port = free_port()
    words = ["-m", "landline", "demo", "--port", str(port), "--data", str(tmp_path / "demo"), "--log-level", "info"]
    log = tmp_path / "log"
    with log.open("ab") as out:
        demo = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=out, stderr=out)
    try:
        await until(lambda: "Ctrl-C stops it" in log.read_text())
        demo.send_signal(signal.SIGHUP)
        await until(lambda: "settings read again" in log.read_text())
        assert "restart" not in log.read_text()
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/ready") as answer:
            assert answer.status == 200
    finally:
        with contextlib.suppress(ProcessLookupError):
            demo.terminate()
        assert await asyncio.wait_for(demo.wait(), DEADLINE_S) == 0


def test_what_needs_a_restart_is_named_and_no_secret_is_among_it(tmp_path: Path) -> None:
    files = Files.within(tmp_path)
    plain = Settings(bots=(BotTable(id="a", sites=(SiteTable(id="s", secret=OLD),)),), secret=OLD)
    for same in (
        Settings(bots=(BotTable(id="a", sites=(SiteTable(id="s", secret=NEW),)),), secret=NEW, log_level="debug"),
        Settings(bots=(BotTable(id="a", app_secret=(OLD_APP,), sites=(SiteTable(id="s"),)),), admin_secret=NEW_ADMIN),
    ):
        assert waiting_for_restart(plain, same) == []
    assert waiting_for_restart(plain, Settings(port=1)) == ["bots", "port"]
    assert waiting_for_restart(Settings(), Settings(tls_cert=files.certificate, tls_key=files.key)) == [
        "tls_cert",
        "tls_key",
    ]
    encrypted = Settings(tls_cert=files.certificate, tls_key=files.key)
    assert waiting_for_restart(encrypted, Settings(tls_cert=files.ca, tls_key=files.ca_key)) == []
