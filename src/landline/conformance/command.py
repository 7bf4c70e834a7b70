"""`landline conformance`: the checks against a server that runs somewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import click

_PREFIX = "/v3/directline"


@click.command()
@click.option("--url", required=True, help="Where the server is, with or without /v3/directline behind it.")
@click.option("--secret", envvar="LANDLINE_SECRET", required=True, help="A secret. Better: LANDLINE_SECRET.")
@click.option("--second-secret", help="Another secret of the same site.")
@click.option("--other-bot-secret", help="A secret of another bot.")
@click.option("--bot-port", type=click.IntRange(1, 65535), help="Where the suite's bot listens; the server calls it.")
@click.option("--only", default="", metavar="A,B,73-98", help="Groups and numbers to run. Default: all.")
@click.option("--slow", is_flag=True, help="Run what takes as long as the server's time-outs, too.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the results there.")
def conformance(
    url: str,
    secret: str,
    second_secret: str | None,
    other_bot_secret: str | None,
    bot_port: int | None,
    only: str,
    slow: bool,
    json_file: Path | None,
) -> None:
    """Check a Direct Line server, statement by statement, over the wire.

    The bot behind the server has to take what it gets. For the checks that need more, start the server with
    http://127.0.0.1:PORT/api/messages as its bot and give the PORT: the suite listens there.
    """
    from landline.conformance import remote  # the suite, and its HTTP client: to show the options nobody needs them

    try:
        checks = remote.checks_named(only)
    except ValueError as error:
        raise click.BadParameter(f"{error} is neither a group nor a number", param_hint="--only") from error
    domain = url.rstrip("/").removesuffix(_PREFIX) + _PREFIX
    secrets = (secret, second_secret, other_bot_secret)
    sys.exit(remote.check(domain, secrets, checks, bot_port, slow=slow, json_file=json_file))
