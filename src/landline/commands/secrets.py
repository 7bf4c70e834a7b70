"""`landline secret`: the two secrets of a site."""

from __future__ import annotations

import click

from landline.commands.groups import Group
from landline.commands.office import Office, in_office
from landline.commands.printing import print_secret


@click.group(cls=Group)
def secret() -> None:
    """The secrets of a site: two, so that one can be exchanged while the other is in use."""


_key = click.option(
    "--key", type=click.Choice(["1", "2"]), default="1", show_default=True, help="Which secret of the site."
)


@secret.command("rotate")
@click.argument("site_id", metavar="SITE")
@_key
@in_office
def rotate(office: Office, site_id: str, key: str) -> None:
    """Exchange a secret, or make the second one, and print it. Tokens of the old one live on."""
    print_secret(office.ask("POST", "sites", site_id, "secrets", key, "rotate")["secret"])


@secret.command("revoke")
@click.argument("site_id", metavar="SITE")
@_key
@click.option("--ski", help="The mark of a secret that is neither key: rotated before, or in the settings.")
@in_office
def revoke(office: Office, site_id: str, key: str, ski: str | None) -> None:
    """Exchange a secret that leaked, and refuse everything that came from it: tokens and open streams."""
    if ski is None:
        print_secret(office.ask("POST", "sites", site_id, "secrets", key, "revoke")["secret"])
    else:
        office.ask("POST", "sites", site_id, "revocations", body={"ski": ski})
        click.echo(f"Revoked {ski!r} of the site {site_id!r}.")


@secret.command("remove")
@click.argument("site_id", metavar="SITE")
@_key
@in_office
def remove_secret(office: Office, site_id: str, key: str) -> None:
    """Do without a secret. Tokens of it live on."""
    office.ask("DELETE", "sites", site_id, "secrets", key)
    click.echo(f"Removed secret {key} of the site {site_id!r}.")
