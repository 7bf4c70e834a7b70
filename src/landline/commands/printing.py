"""How commands print: what was asked for on standard output, everything else on standard error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import click

from landline.core.bot import without_query


def print_json(value: object) -> None:
    """Everything there is to know, for a script."""
    click.echo(json.dumps(value, indent=2))


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """In columns, under their heads."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_secret(secret: str) -> None:
    """Alone on standard output, so that a script can take it."""
    click.echo("The new secret. It is shown only now, and kept nowhere in readable form:", err=True)
    click.echo(secret)


def print_changes(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """What differs, a property a line."""
    changed = [name for name in after if after[name] != before.get(name)]
    for name in changed:
        click.echo(f"{name}: {_shown(name, before.get(name))} -> {_shown(name, after[name])}")
    if not changed:
        click.echo("Nothing has changed: it was like that already.")


def _shown(name: str, value: object) -> str:
    match value:
        case None | []:
            return "-"
        case bool():
            return "true" if value else "false"
        case list():
            return ", ".join(map(str, value))
    return without_query(str(value)) if name == "endpoint" else str(value)


def counted(number: int, one: str, several: str) -> str:
    """`1 site`, `2 sites`."""
    return f"{number} {one if number == 1 else several}"


def where(each: Mapping[str, object]) -> str:
    """Where a bot or a site is named."""
    return "settings" if each["read_only"] else "store"
