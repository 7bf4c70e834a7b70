"""The `landline` command. Settings come from flags, the environment and the file, in this order (design section 6)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import click
import structlog
from rich.console import Console

from landline import __version__
from landline.config import Settings, description, settings_from
from landline.conformance.command import conformance
from landline.core.bot import SHORT_LIFE, SHORT_LIFE_S
from landline.demo.command import demo_settings, greeting
from landline.demo.server import Demo
from landline.errors import DataDirectoryError, StartupError
from landline.observe import log_to_stderr
from landline.operate import COMMANDS
from landline.server.app import ADDRESS_FILE, Server, SystemClock
from landline.server.certificates import HOSTS, end_of, make_certificate
from landline.server.listener import inherited_socket, raise_file_limit
from landline.stores import doctor
from landline.stores.directory import LOCK_FILE, Directory
from landline.stores.sqlite import FILE

_NEVER_FLAGS = frozenset(("secret", "admin_secret", "bot_app_secret", "bots"))
"""A command line is public, and has no tables."""

_SOON = dt.timedelta(days=14)
"""What an operator needs at most to get another certificate."""

_log = structlog.get_logger(__name__)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="landline")
def main() -> None:
    """A Direct Line 3.0 channel that you run yourself."""


main.add_command(conformance)


def _settings_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Every setting as a flag, besides secrets: a command line is public."""
    for name in reversed(Settings.__struct_fields__):
        if name not in _NEVER_FLAGS:
            flag = f"--{name.replace('_', '-')}"
            command = click.option(flag, name, default=None, metavar="VALUE", help=description(name))(command)
    return command


@main.command()
@click.option("--config", type=click.Path(path_type=Path), envvar="LANDLINE_CONFIG", help="TOML file with settings.")
@_settings_flags
def serve(config: Path | None, **flags: Any) -> None:
    """Run the server until SIGTERM or Ctrl-C."""
    with _exit_codes():
        settings = settings_from(flags, os.environ, config)
        log_to_stderr(settings.log_level)
        server = Server(settings, show_secret=_show_secret, listening=inherited_socket(os.environ, os.getpid()))
        files = raise_file_limit()
        _run(server, lambda: _say_what_to_expect(settings, files))


@main.command()
@_settings_flags
def demo(**flags: Any) -> None:
    """Run the server with a bot of its own, or with --bot, and a page that can cut its own line. For this machine
    only."""
    _show_demo(flags)


@main.command("try")
@click.argument("url")
@_settings_flags
def try_bot(url: str, **flags: Any) -> None:
    """Talk to your bot at URL, on the page of the demo. For this machine only.

    URL is the bot's messaging endpoint, such as http://localhost:3978/api/messages; a port is enough, too.
    """
    _show_demo(flags, url)


def _show_demo(flags: dict[str, Any], url: str | None = None) -> None:
    with _exit_codes():
        settings, typed = demo_settings(flags, os.environ, url)
        log_to_stderr(settings.log_level)
        shown = Demo(settings)
        _run(shown, lambda: click.echo(greeting(shown, typed)))


@main.command("dev-cert")
@click.argument("hosts", nargs=-1)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("landline-cert"),
    show_default=True,
    help="Where the files are written, and where the authority is looked for.",
)
def dev_cert(hosts: tuple[str, ...], directory: Path) -> None:
    """Make a certificate for TLS, and an authority of your own that signs it.

    HOSTS are names and addresses by which the server is reached; without any, those of this machine.
    """
    with _exit_codes():
        paths = make_certificate(directory, hosts or HOSTS, dt.datetime.now(dt.UTC))
        click.echo(f"landline serve --tls-cert {paths.certificate} --tls-key {paths.key}\n")
        click.echo(f"Who connects has to trust {paths.ca}:")
        for who, variable in (
            ("Python", "SSL_CERT_FILE"),
            ("Python", "REQUESTS_CA_BUNDLE"),
            ("Node", "NODE_EXTRA_CA_CERTS"),
        ):
            click.echo(f"    {who:8}{variable}={paths.ca.absolute()}")


def _on_directory(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command on the data directory of a server that does not run."""
    path = click.Path(path_type=Path)
    config = click.option("--config", type=path, envvar="LANDLINE_CONFIG", help="TOML file with the server's settings.")
    return click.option("--data", type=path, help="The server's data directory.")(config(command))


@main.command("doctor")
@click.option("--restored", is_flag=True, help="Say that the directory was put back from a copy.")
@_on_directory
def examine(data: Path | None, config: Path | None, restored: bool) -> None:
    """Look through the store of a server that does not run. Ends with 1 where something is wrong.

    With --restored, every conversation goes on 100,000 numbers later: what was said after the copy was made is lost,
    and no id of it is given again."""
    with _exit_codes(), _store_of(settings_from({"data": data}, os.environ, config)) as store:
        found = doctor.examine(store, SystemClock().now_ms())
        for line in found:
            click.echo(line)
        if found:
            sys.exit(1)
        click.echo(_gap_left(doctor.leave_gap(store, SystemClock().now_ms())) if restored else "Nothing is wrong.")


@main.command()
@click.argument("copy", metavar="COPY", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_on_directory
def restore(data: Path | None, config: Path | None, copy: Path) -> None:
    """Make the data directory out of COPY, a copy of one, and leave a gap as `doctor --restored` does."""
    with _exit_codes():
        settings = settings_from({"data": data}, os.environ, config)
        passing = (LOCK_FILE, ADDRESS_FILE)
        click.echo(_gap_left(doctor.put_back(copy, settings.data, FILE, SystemClock().now_ms(), passing)))


@contextlib.contextmanager
def _store_of(settings: Settings) -> Iterator[Path]:
    """The file of a store that nobody has open, and nobody opens meanwhile. Raises `DataDirectoryError`."""
    store = settings.data / FILE
    if not store.is_file():
        raise DataDirectoryError(f"{settings.data}: there is no store; landline serve makes it")
    directory = Directory(settings.data)
    directory.take()
    try:
        yield store
    finally:
        directory.release()


def _gap_left(conversations: int) -> str:
    return f"{conversations} conversations go on {doctor.GAP:,} numbers later."


for _command in COMMANDS:
    main.add_command(_command)


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    """A start that fails says so in one line: 2 for the configuration, 3 for the data directory."""
    try:
        yield
    except StartupError as error:
        click.echo(f"landline: {error.message}", err=True)
        sys.exit(error.exit_code)


class _Service(Protocol):
    """What runs until it is told to stop."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def _run(service: _Service, say_started: Callable[[], None]) -> None:
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(_until_told_to_stop(service, say_started))


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it installs."""
    try:
        import uvloop  # does not exist everywhere
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _until_told_to_stop(service: _Service, say_started: Callable[[], None]) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels us instead
            asyncio.get_running_loop().add_signal_handler(number, told.set)
    try:
        await service.start()
        say_started()
        _spare_the_collector()
        await told.wait()
    finally:
        await service.stop()


def _say_what_to_expect(settings: Settings, files: int | None) -> None:
    _log.info("open files", limit=files or "unlimited", enough_for="about as many streams")
    if settings.bot is None and not settings.bots:
        _log.warning("no bot endpoint is configured: conversations work, but nobody answers (--bot)")
    if settings.tls_cert is not None:
        end = end_of(settings.tls_cert)
        if end < dt.datetime.now(dt.UTC) + _SOON:
            _log.warning("the certificate ends soon, or has ended: nobody will connect", ends=end.isoformat())
    if settings.token_ttl_s < SHORT_LIFE_S:
        _log.warning(SHORT_LIFE, setting="token_ttl_s")


def _spare_the_collector() -> None:
    """What was loaded stays loaded; sockets leave no cycles behind. About a tenth of the CPU (design section 4)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


def _show_secret(secret: str) -> bool:
    """On a terminal, once: it is kept nowhere in readable form."""
    if not sys.stderr.isatty():
        return False
    console = Console(stderr=True)
    console.print("\nThe secret of this server's first site. It is shown only now; clients and backends need it:\n")
    console.print(f"    {secret}\n", style="bold", highlight=False, soft_wrap=True)
    return True
