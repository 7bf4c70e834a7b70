"""`landline dev-cert`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import click

from landline.commands.options import exit_codes


@click.command("dev-cert")
@click.argument("hosts", nargs=-1)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("landline-cert"),
    show_default=True,
    help="Where the files are written, and where the authority is looked for.",
)
def dev_cert(hosts: tuple[str, ...], directory: Path) -> None:
    """Make a certificate for TLS, and an authority of your own that signs it.

    HOSTS are names and addresses by which the server is reached; without any, those of this machine.
    """
    from landline.server.certificates import HOSTS, make_certificate  # brings X.509 with it

    with exit_codes():
        paths = make_certificate(directory, hosts or HOSTS, dt.datetime.now(dt.UTC))
        click.echo(f"landline serve --tls-cert {paths.certificate} --tls-key {paths.key}\n")
        click.echo(f"Who connects has to trust {paths.ca}:")
        for who, variable in (
            ("Python", "SSL_CERT_FILE"),
            ("Python", "REQUESTS_CA_BUNDLE"),
            ("Node", "NODE_EXTRA_CA_CERTS"),
        ):
            click.echo(f"    {who:8}{variable}={paths.ca.absolute()}")
