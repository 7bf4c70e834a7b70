"""`landline signing-key`: the keys by which bots with an app id know this server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from landline.commands.groups import Group
from landline.commands.office import Office, in_office
from landline.commands.printing import print_rows


@click.group("signing-key", cls=Group)
def signing_key() -> None:
    """The keys by which bots with an app id know this server."""


@signing_key.command("list")
@in_office
def list_signing_keys(office: Office) -> None:
    """Show the keys that bots may see, and when each begins to sign."""
    _print_signing_keys(office.ask("GET", "signing-keys")["signing_keys"])


def _print_signing_keys(keys: Sequence[Mapping[str, str]]) -> None:
    print_rows([("KEY", "SIGNS FROM"), *((key["kid"], key["signs_from"]) for key in keys)])


@signing_key.command("rotate")
@in_office
def rotate_signing_key(office: Office) -> None:
    """Show a new key. It signs when every bot has had the time to fetch it; the old one stays good as long again."""
    _print_signing_keys([office.ask("POST", "signing-keys", "rotate")])


@signing_key.command("withdraw")
@click.argument("key")
@in_office
def withdraw_signing_key(office: Office, key: str) -> None:
    """Refuse everything that KEY has signed, from now on, and show the keys that are left: for a key that leaked.

    Restart your bots then: they keep the keys that they know and the tokens that they have."""
    _print_signing_keys(office.ask("DELETE", "signing-keys", key)["signing_keys"])
