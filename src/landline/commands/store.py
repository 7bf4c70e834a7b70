"""Commands on the store: `landline doctor` and `landline restore` of one that nobody serves, `landline store sql`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from landline.commands.options import exit_codes
from landline.config import Settings, settings_from
from landline.errors import ConfigurationError, DataDirectoryError
from landline.stores.directory import ADDRESS_FILE, LOCK_FILE, STORE_FILE, Directory


def _on_directory(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command on the data directory of a server that does not run."""
    path = click.Path(path_type=Path)
    config = click.option("--config", type=path, envvar="LANDLINE_CONFIG", help="TOML file with the server's settings.")
    return click.option("--data", type=path, help="The server's data directory.")(config(command))


@click.command("doctor")
@click.option("--restored", is_flag=True, help="Say that the directory was put back from a copy.")
@_on_directory
def examine(data: Path | None, config: Path | None, restored: bool) -> None:
    """Look through the store of a server that does not run. Ends with 1 where something is wrong.

    With --restored, every conversation goes on 100,000 numbers later: what was said after the copy was made is lost,
    and no id of it is given again."""
    from landline.stores import doctor

    with exit_codes(), _store_of(settings_from({"data": data}, os.environ, config)) as store:
        found = doctor.examine(store, _now_ms())
        for line in found:
            click.echo(line)
        if found:
            sys.exit(1)
        click.echo(_gap_left(doctor.leave_gap(store, _now_ms()), doctor.GAP) if restored else "Nothing is wrong.")


@click.command("restore")
@click.argument("copy", metavar="COPY", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_on_directory
def restore(data: Path | None, config: Path | None, copy: Path) -> None:
    """Make the data directory out of COPY, a copy of one, and leave a gap as `doctor --restored` does."""
    from landline.stores import doctor

    with exit_codes():
        settings = settings_from({"data": data}, os.environ, config)
        passing = (LOCK_FILE, ADDRESS_FILE)
        click.echo(_gap_left(doctor.put_back(copy, settings.data, STORE_FILE, _now_ms(), passing), doctor.GAP))


@click.group("store")
def store() -> None:
    """The store in PostgreSQL."""


@store.command("sql")
def sql() -> None:
    """Print the statements that make the tables, for the owner of the database to run."""
    with exit_codes():
        click.echo(_layout(), nl=False)


def _layout() -> str:
    try:
        from landline.stores.postgres import layout
    except ModuleNotFoundError as error:
        raise ConfigurationError("The store in PostgreSQL needs an extra: pip install 'landline[postgres]'") from error
    return layout.statements()


@contextlib.contextmanager
def _store_of(settings: Settings) -> Iterator[Path]:
    """The file of a store that nobody has open, and nobody opens meanwhile. Raises `DataDirectoryError`."""
    store = settings.data / STORE_FILE
    if not store.is_file():
        raise DataDirectoryError(f"{settings.data}: there is no store; landline serve makes it")
    directory = Directory(settings.data)
    directory.take()
    try:
        yield store
    finally:
        directory.release()


def _gap_left(conversations: int, numbers: int) -> str:
    return f"{conversations} conversations go on {numbers:,} numbers later."


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
