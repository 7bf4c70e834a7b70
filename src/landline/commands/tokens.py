"""`landline token`: a token for a new conversation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from landline.commands.groups import Command
from landline.commands.office import Office, good, in_office, request
from landline.commands.options import as_json_option, given
from landline.commands.printing import print_json
from landline.config import DEFAULT_SITE

_PREFIX = "/v3/directline"


@click.command("token", cls=Command)
@click.argument("site_id", metavar="[SITE]", default=DEFAULT_SITE)
@click.option("--user", metavar="ID", help="Bind the token to this user.")
@click.option("--name", help="The user's display name.")
@click.option(
    "--trusted-origins", metavar="VALUE", help="Origins of the pages that may use it, where the site has none."
)
@click.option("--at", metavar="URL", help="Ask the server at this address, with the secret in LANDLINE_SECRET.")
@as_json_option
@in_office
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
        body["user"] = given({"id": user, "name": name})
    if trusted_origins is not None:
        body["trustedOrigins"] = [part.strip() for part in trusted_origins.split(",")]
    made = office.ask("POST", "sites", site_id, "tokens", body=body) if at is None else _generate(at, body)
    if as_json:
        print_json(made)
    else:
        click.echo(made["token"])


def _generate(at: str, body: Mapping[str, object]) -> Any:
    """By Generate Token, as anybody with a secret can."""
    secret = os.environ.get("LANDLINE_SECRET", "").strip()
    if not secret:
        raise click.UsageError("--at needs the secret in LANDLINE_SECRET")
    url = f"{at.rstrip('/')}{_PREFIX}/tokens/generate"
    return good(*request("POST", url, secret, msgspec.json.encode(body)))
