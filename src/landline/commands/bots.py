"""`landline bot`: the bots beside those that the settings name."""

from __future__ import annotations

from shlex import quote

import click
import msgspec

from landline.bots.sdks import Identity, Sdk, rendered, warning_of
from landline.commands.groups import Group
from landline.commands.office import Office, end, in_office
from landline.commands.options import as_json_option, deleting, given, is_wanted, properties
from landline.commands.printing import counted, print_changes, print_json, print_rows, print_secret, where
from landline.core.bot import Profile, without_query


@click.group(cls=Group)
def bot() -> None:
    """Bots beside those that the settings name."""


_BESIDES = ("id",)
_SDK = click.Choice([sdk.value for sdk in Sdk])


@bot.command("add")
@click.argument("id_", metavar="ID")
@properties(Profile, *_BESIDES)
@click.option("--sdk", type=_SDK, help="Print the bot's settings, the secret in them, in the words of this SDK.")
@in_office
def add_bot(office: Office, id_: str, sdk: str | None, **said: object) -> None:
    """Register a bot. It needs a site before anybody can talk to it.

    With an app id its first secret is printed."""
    app_id = said["app_id"]
    if app_id is None and sdk is not None:
        raise click.UsageError("--sdk needs an --app-id: without one a bot needs no settings")
    told = office.identity(str(app_id)) if sdk is not None else None  # before anything is registered
    office.ask("POST", "bots", body={"id": id_, **given(said)})
    if app_id is None:
        click.echo(f"Registered the bot {id_!r}. To let people talk to it: landline site add SITE {quote(id_)}")
        return
    secret = office.ask("POST", "bots", id_, "app-secrets", "1", "rotate")["secret"]
    if told is None:
        print_secret(secret)
    else:
        _print_settings(Sdk(sdk), msgspec.structs.replace(told, secret=secret))


@bot.command("change")
@click.argument("id_", metavar="ID")
@properties(Profile, *_BESIDES)
@in_office
def change_bot(office: Office, id_: str, **said: object) -> None:
    """Say something else about a bot; what is not named stays."""
    before = office.ask("GET", "bots", id_)
    print_changes(before, office.ask("PATCH", "bots", id_, body=given(said)))


@bot.command("list")
@as_json_option
@in_office
def list_bots(office: Office, as_json: bool) -> None:
    """Show all bots."""
    bots = office.ask("GET", "bots")["bots"]
    if as_json:
        print_json(bots)
        return
    named = [
        (each["id"], each["name"], each["app_id"] or "-", without_query(each["endpoint"] or "-"), where(each))
        for each in bots
    ]
    print_rows([("ID", "NAME", "APP ID", "ENDPOINT", "NAMED IN"), *named])


@bot.command("remove")
@click.argument("id_", metavar="ID")
@deleting
@in_office
def remove_bot(office: Office, id_: str, yes: bool, dry_run: bool) -> None:
    """Forget a bot and its sites: all their secrets and tokens are refused from now on.

    Its conversations stay until they are deleted, or have been idle for long enough."""
    office.ask("GET", "bots", id_)  # or there is none
    sites = [str(each["id"]) for each in office.ask("GET", "sites", query={"bot": id_})["sites"]]
    theirs = f"its {counted(len(sites), 'site', 'sites')}: {', '.join(sites)}" if sites else "no site"
    what = f"the bot {id_!r} and {theirs}"
    if is_wanted(what, yes=yes, dry_run=dry_run):
        office.ask("DELETE", "bots", id_)
        click.echo(f"Deleted {what}.")


@bot.command("new-key")
@click.argument("id_", metavar="ID")
@in_office
def new_service_key(office: Office, id_: str) -> None:
    """Give a bot another service URL. Former ones work until they are removed; their marks are printed."""
    for key in office.ask("POST", "bots", id_, "service-keys")["service_keys"][1:]:
        click.echo(key["mark"])


@bot.command("remove-key")
@click.argument("id_", metavar="ID")
@click.argument("mark")
@in_office
def remove_service_key(office: Office, id_: str, mark: str) -> None:
    """Let a former service URL of a bot work no longer. MARK is what new-key printed."""
    office.ask("DELETE", "bots", id_, "service-keys", mark)
    click.echo(f"The service URL {mark!r} of the bot {id_!r} works no longer.")


_app_key = click.option(
    "--key", type=click.Choice(["1", "2"]), default="1", show_default=True, help="Which secret of the bot."
)


@bot.command("secret")
@click.argument("id_", metavar="ID")
@_app_key
@in_office
def rotate_app_secret(office: Office, id_: str, key: str) -> None:
    """Exchange a secret of the bot's app id, or make the second one, and print it."""
    print_secret(office.ask("POST", "bots", id_, "app-secrets", key, "rotate")["secret"])


@bot.command("remove-secret")
@click.argument("id_", metavar="ID")
@_app_key
@in_office
def remove_app_secret(office: Office, id_: str, key: str) -> None:
    """Do without a secret of the bot's app id."""
    office.ask("DELETE", "bots", id_, "app-secrets", key)
    click.echo(f"Removed secret {key} of the bot {id_!r}.")


@bot.command("settings")
@click.argument("id_", metavar="ID")
@click.argument("sdk", type=_SDK)
@in_office
def bot_settings(office: Office, id_: str, sdk: str) -> None:
    """Print what a bot with an app id has to be told, in the words of its SDK."""
    app_id = office.ask("GET", "bots", id_)["app_id"]
    if app_id is None:
        end(f"the bot {id_!r} has no app id, and needs no settings")
    _print_settings(Sdk(sdk), office.identity(app_id))


def _print_settings(sdk: Sdk, identity: Identity) -> None:
    """Alone on standard output, so that they can go into a file; what is wrong with them beside it."""
    click.echo(rendered(sdk, identity), nl=False)
    if warning := warning_of(sdk, identity):
        click.echo(f"landline: {warning}", err=True)
