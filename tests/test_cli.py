"""`landline serve` as an operator meets it: real processes, what they print, and the code they leave with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import resource
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from landline import __version__
from landline.cli import COMMANDS, main
from landline.commands.subjects import SUBJECTS

LANDLINE = [sys.executable, "-m", "landline"]
SECRET = "secret-in-the-environment-0123456789"
DEADLINE_S = 20


def environment(**more: str) -> dict[str, str]:
    """Ours, without what it may say to a Landline."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LANDLINE_")} | more


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [*LANDLINE, *arguments],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def refused(code: int, *arguments: str, **variables: str) -> str:
    """The one line with which a start ends that fails with `code`."""
    done = run("serve", *arguments, **variables)
    assert (done.returncode, done.stdout) == (code, ""), done
    (line,) = done.stderr.splitlines()
    assert line.startswith("landline: ")
    return line.removeprefix("landline: ")


class Serving:
    """A server that has said that it listens. `lines` is everything that it has logged, parsed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.line("listening")["url"])

    def line(self, event: str) -> dict[str, Any]:
        """The one log line with this event."""
        (found,) = (line for line in self.lines if line["event"] == event)
        return found

    async def read_until(self, event: str) -> None:
        """Read the log until a line with this event."""
        async with asyncio.timeout(DEADLINE_S):
            while not any(line["event"] == event for line in self.lines):
                await self._read_line()

    async def _read_line(self) -> None:
        assert self.process.stderr is not None
        raw = await self.process.stderr.readline()
        assert raw, f"ended after {self.lines}"
        self.lines.append(json.loads(raw))

    async def ended(self) -> int:
        """The exit code, when it has ended; `lines` is complete then."""
        assert self.process.stderr is not None
        async with asyncio.timeout(DEADLINE_S):
            self.lines += [json.loads(raw) async for raw in self.process.stderr]
            return await self.process.wait()

    async def status(self, credential: str) -> int:
        """What a start of a conversation with this credential is answered."""
        return await start_with(self.url, credential)


async def start_with(url: str, credential: str) -> int:
    """The status of a start of a conversation."""
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {credential}"}) as session,
        session.post(f"{url}/v3/directline/conversations") as answer,
    ):
        return answer.status


@contextlib.asynccontextmanager
async def serving(data: Path, *arguments: str, **variables: str) -> AsyncIterator[Serving]:
    """A server on a free port. It is killed in the end if it still runs."""
    begin = ("serve", "--data", str(data), "--port", "0")
    process = await asyncio.create_subprocess_exec(
        *LANDLINE, *begin, *arguments, env=environment(**variables), stderr=subprocess.PIPE
    )
    try:
        server = Serving(process)
        await server.read_until("listening")
        yield server
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory that the first start makes."""
    return tmp_path / "data"


# Usage


def test_version_is_that_of_the_package() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"landline, version {__version__}\n")


def test_help_has_every_setting_but_the_secret_with_its_sentence() -> None:
    done = run("serve", "--help")
    assert done.returncode == 0
    assert "--token-ttl-s DURATION" in done.stdout
    assert "Lifetime of a token." in done.stdout
    assert "--secret" not in done.stdout
    words = " ".join(done.stdout.split())
    assert "[default: 3600; LANDLINE_TOKEN_TTL_S]" in words
    assert "--inner-http-error / --no-inner-http-error" in words
    assert "--bot-turns overlap|serial" in words
    subjects = re.findall(r"^([A-Z].*):$", done.stdout, re.MULTILINE)
    assert subjects == [*SUBJECTS, "Besides"]


@pytest.mark.parametrize(
    ("command", "data"), [("demo", "landline-data/demo"), ("try", "landline-data/try/…"), ("serve", "landline-data")]
)
def test_help_has_the_defaults_of_its_own_command(command: str, data: str) -> None:
    words = "".join(run(command, "--help").stdout.split())
    level = "info" if command == "serve" else "warning"
    assert f"[default:{data};LANDLINE_DATA]" in words
    assert f"[default:{level};LANDLINE_LOG_LEVEL]" in words


@pytest.mark.parametrize("arguments", [("--unheard-of",), ("--port",), ("more",), ("--secret", SECRET)])
def test_flag_that_does_not_exist_is_bad_usage(arguments: tuple[str, ...]) -> None:
    done = run("serve", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr


# A start that fails says which key and why, in one line


def test_bad_flag_ends_the_start_with_2(data: Path) -> None:
    line = refused(2, "--data", str(data), "--token-ttl-s", "0")
    assert line == "token_ttl_s: must be at least 1 (on the command line)"
    assert not data.exists()


def test_bad_variable_ends_the_start_with_2() -> None:
    assert refused(2, LANDLINE_KEEPALIVE_S="31").startswith("keepalive_s: ")


@pytest.mark.parametrize("secret", ["short", SECRET + "!", "x" * 23])
def test_bad_secret_ends_the_start_with_2_and_is_not_repeated(secret: str) -> None:
    line = refused(2, LANDLINE_SECRET=secret)
    assert line.startswith("secret: needs at least 24 characters")
    assert secret not in line


def test_bad_file_ends_the_start_with_2(tmp_path: Path) -> None:
    config = tmp_path / "landline.toml"
    assert refused(2, "--config", str(config)) == f"config: {config}: No such file or directory"
    config.write_text("colour = 'red'\n")
    for line in (refused(2, "--config", str(config)), refused(2, LANDLINE_CONFIG=str(config))):
        assert line == f"colour: no such setting (in {config})"


def test_port_in_use_ends_the_start_with_2(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused(2, "--data", str(data), "--port", str(port))
    assert line == f"port: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_certificates_that_are_none_end_the_start_with_2(data: Path, tmp_path: Path) -> None:
    missing = tmp_path / "authorities.pem"
    done = run("serve", "--data", str(data), "--port", "0", "--bot-ca-file", str(missing), LANDLINE_SECRET=SECRET)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"landline: bot_ca_file: {missing}")
    assert "Traceback" not in done.stderr


def test_directory_that_is_a_file_ends_the_start_with_3(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("not a directory")
    assert refused(3, "--data", str(file), "--port", "0").startswith(f"{file}: ")
    assert refused(3, "--data", str(file / "below"), "--port", "0").startswith(f"{file / 'below'}: ")
    assert file.read_text() == "not a directory"


async def test_directory_that_others_may_write_ends_the_start_with_3_and_one_that_they_may_read_is_warned_of(
    data: Path,
) -> None:
    data.mkdir()
    data.chmod(0o777)
    assert refused(3, "--data", str(data), "--port", "0").startswith(
        f"{data} can be written by other users: chmod go-w "
    )
    for mode, warnings in ((0o755, 1), (0o700, 0)):
        data.chmod(mode)
        async with serving(data, LANDLINE_SECRET=SECRET) as server:
            server.process.terminate()
            assert await server.ended() == 0
        assert [line["mend"] for line in server.lines if "mend" in line] == [f"chmod -R go= {data}"] * warnings


async def stopped(data: Path) -> Path:
    """The database of a server that has run there and is stopped."""
    async with serving(data, LANDLINE_SECRET=SECRET) as server:
        assert await server.status(SECRET) == 201
        server.process.terminate()
        assert await server.ended() == 0
    return data / "landline.db"


async def test_damaged_store_ends_the_start_with_3(data: Path) -> None:
    database = await stopped(data)
    whole = database.read_bytes()
    database.write_bytes(b"something else".ljust(len(whole), b"\0"))
    line = refused(3, "--data", str(data), "--port", "0", LANDLINE_SECRET=SECRET)
    assert line.startswith(f"{database} is damaged: ")
    database.write_bytes(whole)
    async with serving(data, LANDLINE_SECRET=SECRET):
        pass


async def test_store_of_a_newer_version_ends_the_start_with_3(data: Path) -> None:
    database = await stopped(data)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 999")
    line = refused(3, "--data", str(data), "--port", "0", LANDLINE_SECRET=SECRET)
    assert line.startswith(f"{database} was written by a newer version")


# A start that succeeds


async def test_flag_wins_over_variable_and_variable_over_file(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "landline.toml"
    config.write_text(f'bot = "http://file.example/"\ndata = "{tmp_path / "of-the-file"}"\nlog_level = "warning"\n')
    async with serving(
        data,
        "--bot",
        "http://flag.example/",
        LANDLINE_CONFIG=str(config),
        LANDLINE_BOT="http://variable.example/",
        LANDLINE_DATA=str(tmp_path / "of-the-variable"),
        LANDLINE_LOG_LEVEL="info",
    ) as server:
        listening = server.line("listening")
        assert (listening["bot"], listening["data"]) == ("http://flag.example/", str(data))
    assert sorted(tmp_path.iterdir()) == [data, config]


async def test_server_without_a_bot_says_so_in_one_line(data: Path) -> None:
    async with serving(data, LANDLINE_SECRET=SECRET) as server:
        server.process.terminate()
        assert await server.ended() == 0
    assert len([line for line in server.lines if "no bot endpoint" in line["event"]]) == 1


async def test_a_misspelt_variable_is_warned_of_at_the_start(data: Path) -> None:
    variables = {"LANDLINE_ENHANCED_AUTENTICATION": "true", "LANDLINE_SERVICE_HOST": "10.0.0.1"}
    async with serving(data, "--enhanced-authentication", LANDLINE_SECRET=SECRET, **variables) as server:
        server.process.terminate()
        assert await server.ended() == 0
    warnings = [line["event"] for line in server.lines if "no setting" in line["event"]]
    assert warnings == [
        "LANDLINE_ENHANCED_AUTENTICATION is no setting, and has no effect: "
        "did you mean LANDLINE_ENHANCED_AUTHENTICATION?"
    ]


async def test_the_log_line_of_a_request_says_whose_it_was(data: Path) -> None:
    async with serving(data, LANDLINE_SECRET=SECRET) as server:
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with aiohttp.ClientSession(f"{server.url}/v3/directline/", headers=headers) as session:
            async with session.post("conversations") as answer:
                conversation = (await answer.json())["conversationId"]
            async with session.get(f"conversations/{conversation}/activities"):
                pass
            async with session.get(f"conversations/{SECRET}/activities"):
                pass
        assert await server.status(SECRET + "x") == 403
        server.process.terminate()
        assert await server.ended() == 0
    requests = [line for line in server.lines if line["event"] == "request"]
    assert [(line["status"], line.get("conversation"), line.get("site"), line.get("bot")) for line in requests] == [
        (201, conversation, "default", "bot"),
        (200, conversation, "default", "bot"),
        (404, None, "default", "bot"),
        (403, None, None, None),
    ]
    assert SECRET not in json.dumps(server.lines)


async def test_short_lives_of_tokens_are_warned_of(data: Path) -> None:
    for life, warnings in (("299", 1), ("300", 0)):
        async with serving(data, "--token-ttl-s", life, LANDLINE_SECRET=SECRET) as server:
            server.process.terminate()
            assert await server.ended() == 0
        assert len([line for line in server.lines if line.get("setting") == "token_ttl_s"]) == warnings


async def test_short_lives_of_a_bots_and_a_sites_tokens_are_warned_of_at_the_start(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "landline.toml"
    site = '[[bots.sites]]\nid = "{}"\ntoken_ttl_s = {}\n'
    file.write_text('[[bots]]\nid = "quick"\ntoken_ttl_s = 299\n' + site.format("a", 300) + site.format("b", 60))
    async with serving(data, LANDLINE_SECRET=SECRET, LANDLINE_CONFIG=str(file)) as server:
        server.process.terminate()
        assert await server.ended() == 0
    warnings = [line for line in server.lines if "token_ttl_s" in line]
    assert [(line.get("bot"), line.get("site"), line["token_ttl_s"], line["level"]) for line in warnings] == [
        ("quick", None, 299, "warning"),
        (None, "b", 60, "warning"),
    ]


async def test_as_many_files_may_be_open_as_the_system_allows_and_the_log_says_how_many(data: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 300), hard))
    try:
        async with serving(data, LANDLINE_SECRET=SECRET) as server:
            await server.read_until("open files")
            allowed = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert allowed == (hard, hard)
    assert server.line("open files")["limit"] == (hard if hard != resource.RLIM_INFINITY else "unlimited")


# The first secret


async def test_where_nobody_watches_the_first_secret_goes_to_a_file_and_only_its_path_is_printed(data: Path) -> None:
    file = data / "first-secret"
    async with serving(data) as server:
        assert file.stat().st_mode & 0o777 == 0o600
        secret = file.read_text().strip()
        assert await server.status(secret) == 201
        server.process.terminate()
        assert await server.ended() == 0
    assert [line["path"] for line in server.lines if "path" in line] == [str(file)]
    assert secret not in json.dumps(server.lines)
    file.unlink()
    async with serving(data) as server:
        assert await server.status(secret) == 201
        server.process.terminate()
        assert await server.ended() == 0
    assert not file.exists()
    assert not [line for line in server.lines if "secret" in line["event"]]


class Terminal:
    """A server whose standard error is a terminal, and the person before it."""

    def __init__(self, data: Path) -> None:
        self._ours, theirs = pty.openpty()
        # Narrower than a secret, so that one that is wrapped is noticed.
        with contextlib.suppress(ImportError):
            import termios

            termios.tcsetwinsize(theirs, (24, 30))
        self.seen = ""
        self.process = subprocess.Popen(
            [*LANDLINE, "serve", "--data", str(data), "--port", "0"],
            env=environment(TERM="xterm-256color"),
            stdin=subprocess.DEVNULL,
            stderr=theirs,
        )
        os.close(theirs)

    def read_until(self, pattern: str) -> re.Match[str]:
        """Look at the screen, its colours aside, until it shows this."""
        end = time.monotonic() + DEADLINE_S
        while True:
            found = re.search(pattern, self.seen)
            if found:
                return found
            assert time.monotonic() < end, self.seen
            if select.select([self._ours], [], [], 0.1)[0]:
                self.seen += re.sub(r"\x1b\[[0-9;]*m", "", os.read(self._ours, 65536).decode())

    def end(self, how: signal.Signals) -> int:
        """The exit code after this signal."""
        self.process.send_signal(how)
        return self.process.wait(DEADLINE_S)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


async def test_person_at_a_terminal_is_shown_the_first_secret_once(data: Path) -> None:
    with Terminal(data) as first:
        secret = first.read_until(r"\r\n +([A-Za-z0-9._-]{43,})\r\n")[1]
        url = first.read_until(r"listening.*url=(http://127\.0\.0\.1:\d+)")[1]
        assert await start_with(url, secret) == 201
        assert first.end(signal.SIGINT) == 0
    assert first.seen.count(secret) == 1
    assert not (data / "first-secret").exists()
    with Terminal(data) as second:
        url = second.read_until(r"listening.*url=(http://127\.0\.0\.1:\d+)")[1]
        assert await start_with(url, secret) == 201
        assert second.end(signal.SIGTERM) == 0
    assert "secret" not in second.seen.lower()


# Ends


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_asked_to_stop_it_leaves_with_0(data: Path, how: signal.Signals) -> None:
    async with serving(data, LANDLINE_SECRET=SECRET) as server:
        server.process.send_signal(how)
        assert await server.ended() == 0
    assert server.lines[-1]["event"] == "stopping"


async def test_stop_that_comes_while_it_starts_is_heeded(data: Path) -> None:
    """From the moment its handlers are set, which is before it touches anything."""
    process = await asyncio.create_subprocess_exec(
        *LANDLINE,
        *("serve", "--data", str(data), "--port", "0"),
        env=environment(LANDLINE_SECRET=SECRET),
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        while not data.exists():
            await asyncio.sleep(0.001)
        process.terminate()
        _, stderr = await process.communicate()
    assert process.returncode == 0, stderr
    assert b"Traceback" not in stderr


async def test_every_line_of_the_log_is_json_and_none_is_secret(data: Path) -> None:
    async with serving(data, "--log-level", "debug", LANDLINE_SECRET=SECRET) as server:
        assert await server.status(SECRET) == 201
        assert await server.status(SECRET + "x") == 403
        server.process.terminate()
        assert await server.ended() == 0  # reads the lines, which must be JSON
    assert len([line for line in server.lines if line["event"] == "request"]) == 2
    assert SECRET not in json.dumps(server.lines)


@contextlib.contextmanager
def full_disk() -> Iterator[int]:
    """A file that takes nothing."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
async def test_full_disk_under_the_log_stops_no_conversation(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with full_disk() as stderr:
        process = await asyncio.create_subprocess_exec(
            *LANDLINE,
            *("serve", "--data", str(data), "--port", str(port)),
            env=environment(LANDLINE_SECRET=SECRET),
            stderr=stderr,
        )
    try:
        async with asyncio.timeout(DEADLINE_S):
            while process.returncode is None:
                try:
                    assert await start_with(f"http://127.0.0.1:{port}", SECRET) == 201
                    break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.02)
        process.terminate()
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# Names


def test_help_lists_every_command_under_its_subject() -> None:
    shown = CliRunner().invoke(main, ["--help"])
    assert shown.exit_code == 0
    for subject, commands in COMMANDS.items():
        lines = shown.stdout.partition(f"\n{subject}:\n")[2].partition("\n\n")[0].splitlines()
        assert [line.split()[0] for line in lines if line[2] != " "] == list(commands)


def completed(words: str) -> list[str]:
    """What click offers a shell for the last of these words."""
    done = subprocess.run(
        [Path(sys.executable).with_name("landline")],
        env=environment(_LANDLINE_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    return done.stdout.splitlines()


def test_a_shell_can_complete_commands_and_their_flags() -> None:
    assert "plain,add" in completed("landline site ")
    assert "plain,--dry-run" in completed("landline forget --dr")
