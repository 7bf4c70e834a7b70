"""`landline site`: the client applications of bots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from landline.commands.groups import Group
from landline.commands.office import Office, in_office
from landline.commands.options import as_json_option, deleting, given, is_wanted, properties
from landline.commands.printing import print_changes, print_json, print_rows, print_secret, where
from landline.core.bot import Site


@click.group(cls=Group)
def site() -> None:
    """Sites: the client applications of bots."""


_SITE_BESIDES = ("id", "bot_id", "enabled")


@site.command("add")
@click.argument("id_", metavar="ID")
@click.argument("bot_id", metavar="BOT")
@properties(Site, *_SITE_BESIDES)
@in_office
def add_site(office: Office, id_: str, bot_id: str, **said: object) -> None:
    """Register a site of BOT, and print its first secret."""
    print_secret(office.ask("POST", "sites", body={"id": id_, "bot_id": bot_id, **given(said)})["secret"])


@site.command("change")
@click.argument("id_", metavar="ID")
@properties(Site, *_SITE_BESIDES)
@in_office
def change_site(office: Office, id_: str, **said: object) -> None:
    """Say something else about a site; what is not named stays."""
    before = office.ask("GET", "sites", id_)
    print_changes(before, office.ask("PATCH", "sites", id_, body=given(said)))


@site.command("list")
@click.option("--of", "bot_id", metavar="BOT", help="Only the sites of this bot.")
@as_json_option
@in_office
def list_sites(office: Office, bot_id: str | None, as_json: bool) -> None:
    """Show sites. Secrets are shown by their mark, which their tokens carry as `ski`."""
    sites = office.ask("GET", "sites", query={} if bot_id is None else {"bot": bot_id})["sites"]
    if as_json:
        print_json(sites)
        return
    named = [
        (each["id"], each["bot_id"], "enabled" if each["enabled"] else "disabled", _secrets(each), where(each))
        for each in sites
    ]
    print_rows([("ID", "BOT", "STATE", "SECRETS", "NAMED IN"), *named])


def _secrets(each: Mapping[str, Any]) -> str:
    own = [f"{secret['key']}:{secret['ski']}" for secret in each["secrets"]]
    return " ".join([*own, *(f"settings:{secret['ski']}" for secret in each["settings"])]) or "-"


@site.command("enable")
@click.argument("id_", metavar="ID")
@in_office
def enable_site(office: Office, id_: str) -> None:
    """Let the secrets and tokens of a site open again what they did."""
    office.ask("PATCH", "sites", id_, body={"enabled": True})
    click.echo(f"The site {id_!r} is enabled.")


@site.command("disable")
@click.argument("id_", metavar="ID")
@in_office
def disable_site(office: Office, id_: str) -> None:
    """Refuse the secrets and tokens of a site, and close its streams, until it is enabled."""
    office.ask("PATCH", "sites", id_, body={"enabled": False})
    click.echo(f"The site {id_!r} is disabled.")


@site.command("remove")
@click.argument("id_", metavar="ID")
@deleting
@in_office
def remove_site(office: Office, id_: str, yes: bool, dry_run: bool) -> None:
    """Forget a site: its secrets and tokens are refused from now on."""
    what = f"the site {id_!r} of the bot {office.ask('GET', 'sites', id_)['bot_id']!r}"
    if is_wanted(what, yes=yes, dry_run=dry_run):
        office.ask("DELETE", "sites", id_)
        click.echo(f"Deleted {what}.")
