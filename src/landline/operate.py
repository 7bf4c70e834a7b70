"""The commands of operators: bots, sites, secrets, tokens. What they change holds at once, also in a running server.

The lock of the data directory says whether a server runs. If one does, it is asked through its admin API, at the
address and with the credential that it left in the directory; otherwise the store is opened for one call, with the same
endpoints on it (`server/unserved.py`). So a command does the same in both cases, and the credential goes to no stranger
who listens where a server once did.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, get_type_hints
from urllib.parse import quote, urlencode

import aiohttp
import click
import msgspec
from msgspec import Meta
from yarl import URL

from landline.bots.sdks import Identity, Sdk, rendered, warning_of
from landline.config import DEFAULT_SITE, Settings, reason, settings_from
from landline.core.bot import Profile, Site, without_query
from landline.errors import DataDirectoryError, DirectoryInUse, StartupError
from landline.observe import log_to_stderr
from landline.server import directline, unserved
from landline.server.admin import PREFIX
from landline.server.app import ADDRESS_FILE, admin_secret
from landline.stores.directory import Directory

_TIMEOUT_S = 30


def _end(message: str, exit_code: int = 1) -> NoReturn:
    """End the command with one line, as refusals of `landline serve` do."""
    click.echo(f"landline: {message}", err=True)
    sys.exit(exit_code)


# Asking


class Office:
    """Where a command asks: a running server, or the store."""

    def __init__(self, data: Path | None, config: Path | None) -> None:
        try:
            self._settings = settings_from({"data": data}, os.environ, config)
        except StartupError as error:
            _end(error.message, error.exit_code)

    def ask(self, method: str, *path: str, query: Mapping[str, str] | None = None, body: object = None) -> Any:
        """One call; what it answers. Ends the command where it is refused: 1, or 3 for the directory."""
        log_to_stderr("warning")
        sent = b"" if body is None else msgspec.json.encode(body)
        where = "/".join((PREFIX, *(quote(part, safe="") for part in path)))
        try:
            status, answer = asyncio.run(_ask(self._settings, method, where, urlencode(query or {}), sent))
        except StartupError as error:
            _end(error.message, error.exit_code)
        return _good(status, answer)

    def identity(self, app_id: str) -> Identity:
        """What a bot with this app id is told. The secret is left out: it is shown once.

        The server says it itself where one runs: its address and its name may be flags of its own."""
        authority = self.ask("GET", "authority")
        return Identity(app_id, "THE-APP-SECRET", authority["base"], authority["issuer"])


async def _ask(settings: Settings, method: str, path: str, query: str, body: bytes) -> tuple[int, bytes]:
    if not settings.data.is_dir():
        raise DataDirectoryError(f"{settings.data}: there is no data directory; landline serve makes it")
    try:
        return await unserved.ask(settings, method, path, query, body)
    except DirectoryInUse:
        directory = Directory(settings.data)
        address = directory.read(ADDRESS_FILE)
        if address is None:
            raise
        base, _, pin = address.partition(" ")
        return await _request(method, f"{base}{path}?{query}", admin_secret(settings, directory), body, pin)


async def _request(method: str, url: str, credential: str, body: bytes, pin: str = "") -> tuple[int, bytes]:
    """`pin` names the one certificate that is good; without it, it must be good for everybody."""
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
    tls = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(bytes.fromhex(pin)) if pin else True)
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_TIMEOUT_S), connector=tls) as session,
            session.request(
                method, URL(url, encoded=True), data=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            return response.status, await response.read()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        _end(f"{url.partition('?')[0]}: {str(error) or 'no answer in time'}")


def _good(status: int, answer: bytes) -> Any:
    try:
        said: Any = json.loads(answer) if answer else None
        if 200 <= status < 300:
            return said
        reason = str(said["error"]["message"])
    except (ValueError, TypeError, KeyError):
        reason = "that is no answer of a Landline"
    _end(f"{reason} ({status})")


# Options


class _Command(click.Command):
    """A command that takes what begins with a hyphen for an option only if it is one of its own.

    Of the ids and marks that we make up, one in 64 begins so, and people may name a bot as they like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What click does, with the options in front and the ids behind `--`, where they are left alone."""
        own = {name: each for each in self.get_params(ctx) if isinstance(each, click.Option) for name in each.opts}
        options: list[str] = []
        ids: list[str] = []
        given = iter(args)
        for word in given:
            option = own.get(word.partition("=")[0])
            if word == "--":
                ids += given
            elif option is None:
                ids.append(word)
            else:
                options.append(word)
                if not option.is_flag and "=" not in word:
                    options += islice(given, 1)
        return super().parse_args(ctx, [*options, "--", *ids])


class _Group(click.Group):
    """A group of such commands."""

    command_class = _Command


def _in_office(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which a command finds its office; the command gets it as its first argument."""

    def run(data: Path | None, config: Path | None, **more: Any) -> None:
        command(Office(data, config), **more)

    run.__doc__ = command.__doc__
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # how click collects them
    path = click.Path(path_type=Path)
    config = click.option("--config", type=path, envvar="LANDLINE_CONFIG", help="TOML file with the server's settings.")
    return click.option("--data", type=path, help="The server's data directory.")(config(run))


_as_json = click.option("--json", "as_json", is_flag=True, help="Print everything there is to know, as JSON.")


def _properties(kind: type[msgspec.Struct], *besides: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """What can be said about a bot or a site, each as an option. None is what was not given."""
    hints = get_type_hints(kind, include_extras=True)

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(kind.__struct_fields__):
            if name not in besides:
                command = click.option(
                    f"--{name.replace('_', '-')}",
                    name,
                    default=None,
                    metavar="VALUE",
                    callback=_converter(hints[name]),
                    help=_description(hints[name]),
                )(command)
        return command

    return add


def _description(hint: Any) -> str:
    return next(str(part.description) for part in hint.__metadata__ if isinstance(part, Meta) and part.description)


def _converter(hint: Any) -> Callable[[click.Context, click.Parameter, str | None], object]:
    def convert(context: click.Context, parameter: click.Parameter, text: str | None) -> object:
        if text is None:
            return None
        given = [part.strip() for part in text.split(",") if part.strip()] if "tuple" in str(hint) else text
        try:
            return msgspec.to_builtins(msgspec.convert(given, hint, strict=False))
        except msgspec.ValidationError as error:
            raise click.BadParameter(reason(error), context, parameter) from error

    return convert


def _given(said: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in said.items() if value is not None}


# Printing


def _print(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    """In columns, under their heads."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_secret(secret: str) -> None:
    """Alone on standard output, so that a script can take it."""
    click.echo("The new secret. It is shown only now, and kept nowhere in readable form:", err=True)
    click.echo(secret)


# Bots


@click.group(cls=_Group)
def bot() -> None:
    """Bots beside those that the settings name."""


_BESIDES = ("id",)
_SDK = click.Choice([sdk.value for sdk in Sdk])


@bot.command("add")
@click.argument("id_", metavar="ID")
@_properties(Profile, *_BESIDES)
@click.option("--sdk", type=_SDK, help="Print the bot's settings, the secret in them, in the words of this SDK.")
@_in_office
def add_bot(office: Office, id_: str, sdk: str | None, **said: object) -> None:
    """Register a bot. It needs a site before anybody can talk to it.

    With an app id its first secret is printed."""
    app_id = said["app_id"]
    if app_id is None and sdk is not None:
        raise click.UsageError("--sdk needs an --app-id: without one a bot needs no settings")
    told = office.identity(str(app_id)) if sdk is not None else None  # before anything is registered
    office.ask("POST", "bots", body={"id": id_, **_given(said)})
    if app_id is None:
        return
    secret = office.ask("POST", "bots", id_, "app-secrets", "1", "rotate")["secret"]
    if told is None:
        _print_secret(secret)
    else:
        _print_settings(Sdk(sdk), msgspec.structs.replace(told, secret=secret))


@bot.command("change")
@click.argument("id_", metavar="ID")
@_properties(Profile, *_BESIDES)
@_in_office
def change_bot(office: Office, id_: str, **said: object) -> None:
    """Say something else about a bot; what is not named stays."""
    office.ask("PATCH", "bots", id_, body=_given(said))


@bot.command("list")
@_as_json
@_in_office
def list_bots(office: Office, as_json: bool) -> None:
    """Show all bots."""
    bots = office.ask("GET", "bots")["bots"]
    if as_json:
        _print(bots)
        return
    named = [(each["id"], each["name"], without_query(each["endpoint"] or "-"), _where(each)) for each in bots]
    _print_rows([("ID", "NAME", "ENDPOINT", "NAMED IN"), *named])


def _where(each: Mapping[str, object]) -> str:
    return "settings" if each["read_only"] else "store"


@bot.command("remove")
@click.argument("id_", metavar="ID")
@_in_office
def remove_bot(office: Office, id_: str) -> None:
    """Forget a bot and its sites: all their secrets and tokens are refused from now on."""
    office.ask("DELETE", "bots", id_)


@bot.command("new-key")
@click.argument("id_", metavar="ID")
@_in_office
def new_service_key(office: Office, id_: str) -> None:
    """Give a bot another service URL. Former ones work until they are removed; their marks are printed."""
    for key in office.ask("POST", "bots", id_, "service-keys")["service_keys"][1:]:
        click.echo(key["mark"])


@bot.command("remove-key")
@click.argument("id_", metavar="ID")
@click.argument("mark")
@_in_office
def remove_service_key(office: Office, id_: str, mark: str) -> None:
    """Let a former service URL of a bot work no longer. MARK is what new-key printed."""
    office.ask("DELETE", "bots", id_, "service-keys", mark)


_app_key = click.option(
    "--key", type=click.Choice(["1", "2"]), default="1", show_default=True, help="Which secret of the bot."
)


@bot.command("secret")
@click.argument("id_", metavar="ID")
@_app_key
@_in_office
def rotate_app_secret(office: Office, id_: str, key: str) -> None:
    """Exchange a secret of the bot's app id, or make the second one, and print it."""
    _print_secret(office.ask("POST", "bots", id_, "app-secrets", key, "rotate")["secret"])


@bot.command("remove-secret")
@click.argument("id_", metavar="ID")
@_app_key
@_in_office
def remove_app_secret(office: Office, id_: str, key: str) -> None:
    """Do without a secret of the bot's app id."""
    office.ask("DELETE", "bots", id_, "app-secrets", key)


@bot.command("settings")
@click.argument("id_", metavar="ID")
@click.argument("sdk", type=_SDK)
@_in_office
def bot_settings(office: Office, id_: str, sdk: str) -> None:
    """Print what a bot with an app id has to be told, in the words of its SDK."""
    app_id = office.ask("GET", "bots", id_)["app_id"]
    if app_id is None:
        _end(f"the bot {id_!r} has no app id, and needs no settings")
    _print_settings(Sdk(sdk), office.identity(app_id))


def _print_settings(sdk: Sdk, identity: Identity) -> None:
    """Alone on standard output, so that they can go into a file; what is wrong with them beside it."""
    click.echo(rendered(sdk, identity), nl=False)
    if warning := warning_of(sdk, identity):
        click.echo(f"landline: {warning}", err=True)


@click.group("signing-key", cls=_Group)
def signing_key() -> None:
    """The keys by which bots with an app id know this server."""


@signing_key.command("list")
@_in_office
def list_signing_keys(office: Office) -> None:
    """Show the keys that bots may see, and when each begins to sign."""
    _print_signing_keys(office.ask("GET", "signing-keys")["signing_keys"])


def _print_signing_keys(keys: Sequence[Mapping[str, str]]) -> None:
    _print_rows([("KEY", "SIGNS FROM"), *((key["kid"], key["signs_from"]) for key in keys)])


@signing_key.command("rotate")
@_in_office
def rotate_signing_key(office: Office) -> None:
    """Show a new key. It signs when every bot has had the time to fetch it; the old one stays good as long again."""
    _print_signing_keys([office.ask("POST", "signing-keys", "rotate")])


@signing_key.command("withdraw")
@click.argument("key")
@_in_office
def withdraw_signing_key(office: Office, key: str) -> None:
    """Refuse everything that KEY has signed, from now on, and show the keys that are left: for a key that leaked.

    Restart your bots then: they keep the keys that they know and the tokens that they have."""
    _print_signing_keys(office.ask("DELETE", "signing-keys", key)["signing_keys"])


# Sites


@click.group(cls=_Group)
def site() -> None:
    """Sites: the client applications of bots."""


_SITE_BESIDES = ("id", "bot_id", "enabled")


@site.command("add")
@click.argument("id_", metavar="ID")
@click.argument("bot_id", metavar="BOT")
@_properties(Site, *_SITE_BESIDES)
@_in_office
def add_site(office: Office, id_: str, bot_id: str, **said: object) -> None:
    """Register a site of BOT, and print its first secret."""
    _print_secret(office.ask("POST", "sites", body={"id": id_, "bot_id": bot_id, **_given(said)})["secret"])


@site.command("change")
@click.argument("id_", metavar="ID")
@_properties(Site, *_SITE_BESIDES)
@_in_office
def change_site(office: Office, id_: str, **said: object) -> None:
    """Say something else about a site; what is not named stays."""
    office.ask("PATCH", "sites", id_, body=_given(said))


@site.command("list")
@click.option("--of", "bot_id", metavar="BOT", help="Only the sites of this bot.")
@_as_json
@_in_office
def list_sites(office: Office, bot_id: str | None, as_json: bool) -> None:
    """Show sites. Secrets are shown by their mark, which their tokens carry as `ski`."""
    sites = office.ask("GET", "sites", query={} if bot_id is None else {"bot": bot_id})["sites"]
    if as_json:
        _print(sites)
        return
    named = [
        (each["id"], each["bot_id"], "enabled" if each["enabled"] else "disabled", _secrets(each), _where(each))
        for each in sites
    ]
    _print_rows([("ID", "BOT", "STATE", "SECRETS", "NAMED IN"), *named])


def _secrets(each: Mapping[str, Any]) -> str:
    own = [f"{secret['key']}:{secret['ski']}" for secret in each["secrets"]]
    return " ".join([*own, *(f"settings:{secret['ski']}" for secret in each["settings"])]) or "-"


@site.command("enable")
@click.argument("id_", metavar="ID")
@_in_office
def enable_site(office: Office, id_: str) -> None:
    """Let the secrets and tokens of a site open again what they did."""
    office.ask("PATCH", "sites", id_, body={"enabled": True})


@site.command("disable")
@click.argument("id_", metavar="ID")
@_in_office
def disable_site(office: Office, id_: str) -> None:
    """Refuse the secrets and tokens of a site, and close its streams, until it is enabled."""
    office.ask("PATCH", "sites", id_, body={"enabled": False})


@site.command("remove")
@click.argument("id_", metavar="ID")
@_in_office
def remove_site(office: Office, id_: str) -> None:
    """Forget a site: its secrets and tokens are refused from now on."""
    office.ask("DELETE", "sites", id_)


# Secrets and tokens


@click.group(cls=_Group)
def secret() -> None:
    """The secrets of a site: two, so that one can be exchanged while the other is in use."""


_key = click.option(
    "--key", type=click.Choice(["1", "2"]), default="1", show_default=True, help="Which secret of the site."
)


@secret.command("rotate")
@click.argument("site_id", metavar="SITE")
@_key
@_in_office
def rotate(office: Office, site_id: str, key: str) -> None:
    """Exchange a secret, or make the second one, and print it. Tokens of the old one live on."""
    _print_secret(office.ask("POST", "sites", site_id, "secrets", key, "rotate")["secret"])


@secret.command("revoke")
@click.argument("site_id", metavar="SITE")
@_key
@click.option("--ski", help="The mark of a secret that is neither key: rotated before, or in the settings.")
@_in_office
def revoke(office: Office, site_id: str, key: str, ski: str | None) -> None:
    """Exchange a secret that leaked, and refuse everything that came from it: tokens and open streams."""
    if ski is None:
        _print_secret(office.ask("POST", "sites", site_id, "secrets", key, "revoke")["secret"])
    else:
        office.ask("POST", "sites", site_id, "revocations", body={"ski": ski})


@secret.command("remove")
@click.argument("site_id", metavar="SITE")
@_key
@_in_office
def remove_secret(office: Office, site_id: str, key: str) -> None:
    """Do without a secret. Tokens of it live on."""
    office.ask("DELETE", "sites", site_id, "secrets", key)


@click.command("token", cls=_Command)
@click.argument("site_id", metavar="[SITE]", default=DEFAULT_SITE)
@click.option("--user", metavar="ID", help="Bind the token to this user.")
@click.option("--name", help="The user's display name.")
@click.option(
    "--trusted-origins", metavar="VALUE", help="Origins of the pages that may use it, where the site has none."
)
@click.option("--at", metavar="URL", help="Ask the server at this address, with the secret in LANDLINE_SECRET.")
@_as_json
@_in_office
def token(
    office: Office,
    site_id: str,
    user: str | None,
    name: str | None,
    trusted_origins: str | None,
    at: str | None,
    as_json: bool,
) -> None:
    """Print a token for a new conversation with the bot of SITE."""
    body: dict[str, object] = {}
    if user is not None:
        body["user"] = _given({"id": user, "name": name})
    if trusted_origins is not None:
        body["trustedOrigins"] = [part.strip() for part in trusted_origins.split(",")]
    made = office.ask("POST", "sites", site_id, "tokens", body=body) if at is None else _generate(at, body)
    if as_json:
        _print(made)
    else:
        click.echo(made["token"])


def _generate(at: str, body: Mapping[str, object]) -> Any:
    """By Generate Token, as anybody with a secret can."""
    secret = os.environ.get("LANDLINE_SECRET", "").strip()
    if not secret:
        raise click.UsageError("--at needs the secret in LANDLINE_SECRET")
    url = f"{at.rstrip('/')}{directline.PREFIX}/tokens/generate"
    return _good(*asyncio.run(_request("POST", url, secret, msgspec.json.encode(body))))


# What bots did not take


@click.command("redeliver", cls=_Command)
@click.argument("activity", metavar="[ACTIVITY]", required=False)
@_as_json
@_in_office
def redeliver(office: Office, activity: str | None, as_json: bool) -> None:
    """Offer ACTIVITY to its bot again; without one, show what bots did not take, oldest first."""
    if activity is not None:
        office.ask("POST", "failures", activity, "redeliver")
        return
    failures = office.ask("GET", "failures")["failures"]
    if as_json:
        _print(failures)
        return
    shown = [(each["activity"], each["bot_id"], each["at"], str(each["attempts"]), each["reason"]) for each in failures]
    _print_rows([("ACTIVITY", "BOT", "LAST", "ATTEMPTS", "REASON"), *shown])


# Conversations


@click.command("delete", cls=_Command)
@click.argument("conversation_id", metavar="CONVERSATION")
@_in_office
def delete(office: Office, conversation_id: str) -> None:
    """Delete a conversation at once, whoever is using it."""
    office.ask("DELETE", "conversations", conversation_id)


@click.command("forget", cls=_Command)
@click.argument("user_id", metavar="USER")
@_in_office
def forget(office: Office, user_id: str) -> None:
    """Forget a person: delete every conversation in which USER took part, and print how many there were."""
    click.echo(office.ask("POST", "forget", body={"user": user_id})["conversations"])


COMMANDS: tuple[click.Command, ...] = (bot, site, secret, token, redeliver, delete, forget, signing_key)
