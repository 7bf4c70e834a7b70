"""The commands of operators: bots, sites, secrets, tokens. What they change holds at once, also in a running server.

The lock of the data directory says whether a server runs. If one does, it is asked through its admin API, at the
address and with the credential that it left in the directory; otherwise the store is opened for one call, with the same
endpoints on it (`server/unserved.py`). So a command does the same in both cases, and the credential goes to no stranger
who listens where a server once did.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import click
import msgspec

from landline.bots.sdks import Identity
from landline.commands.options import warn_of_unknown_variables
from landline.config import Settings, settings_from
from landline.errors import DataDirectoryError, DirectoryInUse, StartupError
from landline.stores.directory import ADDRESS_FILE, ADMIN_SECRET_FILE, STORE_FILE, Directory

_PREFIX = "/admin"
"""As in `server/admin.py`: to import that is to import the server."""


def end(message: str, exit_code: int = 1) -> NoReturn:
    """End the command with one line, as refusals of `landline serve` do."""
    click.echo(f"landline: {message}", err=True)
    sys.exit(exit_code)


class Office:
    """Where a command asks: a running server, or the store."""

    def __init__(self, data: Path | None, config: Path | None) -> None:
        warn_of_unknown_variables(lambda line: click.echo(f"landline: {line}", err=True))
        try:
            self._settings = settings_from({"data": data}, os.environ, config)
        except StartupError as error:
            end(error.message, error.exit_code)

    def ask(self, method: str, *path: str, query: Mapping[str, str] | None = None, body: object = None) -> Any:
        """One call; what it answers. Ends the command where it is refused: 1, or 3 for the directory."""
        sent = b"" if body is None else msgspec.json.encode(body)
        where = "/".join((_PREFIX, *(quote(part, safe="") for part in path)))
        try:
            status, answer = _ask(self._settings, method, where, urlencode(query or {}), sent)
        except StartupError as error:
            end(error.message, error.exit_code)
        return good(status, answer)

    def identity(self, app_id: str) -> Identity:
        """What a bot with this app id is told. The secret is left out: it is shown once.

        The server says it itself where one runs: its address and its name may be flags of its own."""
        authority = self.ask("GET", "authority")
        return Identity(app_id, "THE-APP-SECRET", authority["base"], authority["issuer"])


def _ask(settings: Settings, method: str, path: str, query: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of one call, of the server where one runs. Raises `StartupError`."""
    if settings.store == "sqlite" and not (settings.data / STORE_FILE).is_file():
        raise DataDirectoryError(f"{settings.data}: there is no store; landline serve makes it")
    directory = Directory(settings.data)
    try:
        directory.take()
        directory.release()
        return _ask_the_store(settings, method, path, query, body)
    except DirectoryInUse:
        address = directory.read(ADDRESS_FILE)
        credential = settings.admin_secret or directory.read(ADMIN_SECRET_FILE)
        if address is None or credential is None:
            raise
    base, _, pin = address.partition(" ")
    return request(method, f"{base}{path}?{query}", credential, body, pin)


def _ask_the_store(settings: Settings, method: str, path: str, query: str, body: bytes) -> tuple[int, bytes]:
    import asyncio

    from landline.observe import log_to_stderr  # before anything that logs: see there

    log_to_stderr("warning")
    from landline.server import unserved  # most of the server, and takes as long to import

    return asyncio.run(unserved.ask(settings, method, path, query, body))


def request(method: str, url: str, credential: str, body: bytes, pin: str = "") -> tuple[int, bytes]:
    """One call over the network; ends the command where nothing comes of it. `pin` names the one certificate that is
    accepted; without it, it must be valid for everybody."""
    from landline.commands import client  # only who asks a server needs TLS

    try:
        return client.request(method, url, credential, body, pin)
    except client.NoAnswer as error:
        end(f"{url.partition('?')[0]}: {error}")


def good(status: int, answer: bytes) -> Any:
    try:
        said: Any = json.loads(answer) if answer else None
        if 200 <= status < 300:
            return said
        reason = str(said["error"]["message"])
    except (ValueError, TypeError, KeyError):
        reason = "that is no answer of a Landline"
    end(f"{reason} ({status})")


def in_office(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which a command finds its office; the command gets it as its first argument."""

    def run(data: Path | None, config: Path | None, **more: Any) -> None:
        command(Office(data, config), **more)

    run.__doc__ = command.__doc__
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # how click collects them
    path = click.Path(path_type=Path)
    config = click.option("--config", type=path, envvar="LANDLINE_CONFIG", help="TOML file with the server's settings.")
    return click.option("--data", type=path, help="The server's data directory.")(config(run))
