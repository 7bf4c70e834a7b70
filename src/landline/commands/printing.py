"""How commands print: what was asked for on standard output, everything else on standard error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import click


def print_json(value: object) -> None:
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


def where(each: Mapping[str, object]) -> str:
    """Where a bot or a site is named."""
    return "settings" if each["read_only"] else "store"
