"""`landline dev-cert`, and a server that speaks TLS with what it has made."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import socket
import ssl
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.errors import ConfigurationError
from landline.server.certificates import HOSTS, Files, make_certificate
from support.landline import SECRET, Landline
from support.streams import started

NOW = dt.datetime.now(dt.UTC)


def names(files: Files) -> set[str]:
    """Whom the certificate is for."""
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in extension}


def test_keys_are_private_and_the_certificate_is_for_this_machine(tmp_path: Path) -> None:
    files = make_certificate(tmp_path / "tls", HOSTS, NOW)
    assert names(files) == set(HOSTS)
    for path in (files.ca_key, files.key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700


def test_with_any_umask_keys_are_private_and_what_others_have_to_trust_is_not(tmp_path: Path) -> None:
    for umask in (0, 0o077):
        before = os.umask(umask)
        try:
            files = make_certificate(tmp_path / f"{umask}" / "tls", HOSTS, NOW)
        finally:
            os.umask(before)
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (files.ca_key, files.key, files.ca, files.certificate)]
        assert modes == [0o600, 0o600, 0o644, 0o644]
        assert not stat.S_IMODE((tmp_path / f"{umask}").stat().st_mode) & 0o022


def test_a_second_certificate_has_the_same_authority(tmp_path: Path) -> None:
    """So that nobody has to trust anything anew because a name was added."""
    first = make_certificate(tmp_path, HOSTS, NOW)
    ca, certificate = first.ca.read_bytes(), first.certificate.read_bytes()
    again = make_certificate(tmp_path, ("landline.internal", "10.0.0.7", "bücher.example"), NOW)
    assert again.ca.read_bytes() == ca
    assert again.certificate.read_bytes() != certificate
    assert names(again) == {"landline.internal", "10.0.0.7", "xn--bcher-kva.example"}
    context = ssl.create_default_context(cafile=again.ca)
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("what", ["another key", "no PEM", "ends soon"])
def test_an_authority_that_cannot_sign_is_refused_and_left_alone(tmp_path: Path, what: str) -> None:
    files = make_certificate(tmp_path / "a", HOSTS, NOW - dt.timedelta(days=3400 if what == "ends soon" else 0))
    if what == "another key":
        files.ca_key.write_bytes(make_certificate(tmp_path / "b", HOSTS, NOW).ca_key.read_bytes())
    elif what == "no PEM":
        files.ca_key.write_text("x")
    before = files.ca_key.read_bytes()
    with pytest.raises(ConfigurationError, match="dev-cert: "):
        make_certificate(tmp_path / "a", HOSTS, NOW)
    assert files.ca_key.read_bytes() == before


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a b",
        "a b" * 100,
        "https://landline.internal:3000",
        "landline.internal:3000",
        "landline.internal/",
        "10.0.0.0/8",
        "10.0.0.256",
        "10.0.0",
        "[::1]",
        "a..b",
        "-a.example",
        "a-.example",
        "a.*.example",
        "*",
        "a@b",
        "x" * 64,
        ".".join(["x" * 60] * 5),
        "a.example\n",
    ],
)
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    """And nothing is written, not even an authority."""
    with pytest.raises(ConfigurationError, match="no host: name one such as"):
        make_certificate(tmp_path / "cert", ("localhost", host), NOW)
    assert not (tmp_path / "cert").exists()


def test_names_of_every_form_are_in_the_certificate(tmp_path: Path) -> None:
    hosts = ("LANDLINE", "landline.internal", "*.example.org", "a_b.c-d.x1", "1.example", "10.0.0.7", "2001:db8::7")
    assert names(make_certificate(tmp_path, hosts, NOW)) == set(hosts)


async def test_clients_streams_and_bots_talk_over_tls(tmp_path: Path) -> None:
    """With the certificate that the command has made, from the address to the last frame."""
    made = subprocess.run(
        [sys.executable, "-m", "landline", "dev-cert", "--directory", str(tmp_path / "tls")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    files = Files.within(tmp_path / "tls")
    assert f"--tls-cert {files.certificate} --tls-key {files.key}" in made.stdout
    assert str(files.ca) in made.stdout
    async with ScriptedBot() as bot, Landline(tmp_path / "data", bot=bot.endpoint, tls=files, drain_s=0) as landline:
        async with DirectLine(landline.directline, SECRET, tls=landline.trust) as client:
            opened = await started(client, bot)
            assert opened.stream_url.startswith("wss://127.0.0.1:")
            service_url = bot.service_url(opened.conversation_id)
            assert service_url.startswith(landline.url)
            async with client.stream(opened.stream_url) as stream:
                assert (await client.send(opened.conversation_id, "x" * 200_000)).status == 200
                await stream.until_text("x" * 200_000)
                url = f"{service_url}/v3/conversations/{opened.conversation_id}/activities"
                async with (
                    aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=landline.trust)) as session,
                    session.post(url, json={"type": "message", "text": "over TLS"}) as answer,
                ):
                    assert answer.status == 200
                await stream.until_text("over TLS")
        # Whoever trusts others only, and whoever speaks plain HTTP, gets nowhere.
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(f"{landline.url}/live")
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://127.0.0.1:{landline.port}/live")


async def test_a_certificate_that_has_ended_is_taken_by_nobody_and_replaced_by_one_that_all_trust(
    tmp_path: Path,
) -> None:
    """The server says so at its start. The second `dev-cert` is for another host besides, and needs no new trust."""
    files = make_certificate(tmp_path / "tls", HOSTS, dt.datetime.now(dt.UTC) - dt.timedelta(days=398))
    server = Landline(tmp_path / "data", tls=files, drain_s=0)
    trust, server.trust = server.trust, False
    async with server as landline:
        (line,) = [line for line in landline.log.splitlines() if "the certificate ends soon, or has ended" in line]
        assert '"level":"warning"' in line
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError, match="expired"):
                await session.get(f"{landline.url}/live")
        words = ["dev-cert", "127.0.0.1", "chat.example", "--directory", str(tmp_path / "tls")]
        subprocess.run([sys.executable, "-m", "landline", *words], check=True, capture_output=True)
        await landline.restart()
        assert landline.log.count("the certificate ends soon, or has ended") == 1
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session:
            for host in (None, "chat.example"):
                async with session.get(f"{landline.url}/live", server_hostname=host) as answer:
                    assert answer.status == 200, host
            with pytest.raises(aiohttp.ClientConnectorCertificateError, match="mismatch"):
                await session.get(f"{landline.url}/live", server_hostname="localhost")


async def test_an_idle_client_that_does_not_listen_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """TLS asks both sides to say goodbye. SDKs keep connections in pools that nobody looks at."""
    files = make_certificate(tmp_path / "tls", HOSTS, NOW)
    async with Landline(tmp_path / "data", tls=files, drain_s=0) as landline:
        with (
            socket.create_connection(("127.0.0.1", landline.port)) as plain,
            ssl.create_default_context(cafile=files.ca).wrap_socket(plain, server_hostname="127.0.0.1") as idle,
        ):
            await asyncio.to_thread(idle.sendall, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await asyncio.to_thread(idle.recv, 100)).startswith(b"HTTP/1.1 200 OK\r\n")
            assert await landline.terminate(deadline_s=10) == 0, "the time of a request is 15 s"


async def test_old_versions_of_tls_are_not_spoken(tmp_path: Path) -> None:
    files = make_certificate(tmp_path / "tls", HOSTS, NOW)
    async with Landline(tmp_path / "data", tls=files, drain_s=0) as landline:
        context = ssl.create_default_context(cafile=files.ca)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore"):  # who is old, is told so
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.open_connection("127.0.0.1", landline.port, ssl=context)
        _, writer = await asyncio.open_connection(
            "127.0.0.1", landline.port, ssl=ssl.create_default_context(cafile=files.ca)
        )
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.transport.abort()
