"""`landline demo` and `landline try`."""

from __future__ import annotations

import os
from typing import Any

import click

from landline.commands.groups import BySubject
from landline.commands.options import exit_codes, settings_flags, warn_of_unknown_variables
from landline.demo.settings import DATA, DATA_OF_A_BOT, LOG_LEVEL, demo_settings


@click.command(cls=BySubject)
@settings_flags(data=DATA, log_level=LOG_LEVEL)
def demo(**flags: Any) -> None:
    """Run the server with a bot of its own, or with --bot, and a page that can cut its own line. For this machine
    only."""
    _show(flags)


@click.command("try", cls=BySubject)
@click.argument("url")
@settings_flags(data=f"{DATA_OF_A_BOT}/…", log_level=LOG_LEVEL)
def try_bot(url: str, **flags: Any) -> None:
    """Talk to your bot at URL, on the page of the demo. For this machine only.

    URL is the bot's messaging endpoint, such as http://localhost:3978/api/messages; a port is enough, too.
    """
    _show(flags, url)


def _show(flags: dict[str, Any], url: str | None = None) -> None:
    with exit_codes():
        settings, typed = demo_settings(flags, os.environ, url)
        from landline.observe import log_to_stderr  # before anything that logs: see there

        log_to_stderr(settings.log_level)
        from landline.commands.running import run
        from landline.demo.server import Demo, greeting

        warn_of_unknown_variables(lambda line: click.echo(f"landline: {line}", err=True))
        shown = Demo(settings)
        run(
            shown,
            lambda: click.echo(greeting(shown, typed)),
            lambda: demo_settings(flags, os.environ, url)[0],
        )
