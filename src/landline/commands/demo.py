"""`landline demo`."""

from __future__ import annotations

import os
from typing import Any

import click

from landline.commands.groups import BySubject
from landline.commands.options import exit_codes, settings_flags, warn_of_unknown_variables
from landline.config import settings_from

_DEFAULTS = {"LANDLINE_DATA": "landline-data/demo", "LANDLINE_LOG_LEVEL": "warning"}
"""Data is kept, so that a page goes on where it was when the demo is started again; apart from what `serve` keeps."""


@click.command(cls=BySubject)
@settings_flags
def demo(**flags: Any) -> None:
    """Run the server with a bot of its own and a page that can cut its own line. For this machine only."""
    with exit_codes():
        settings = settings_from(flags, _DEFAULTS | os.environ)
        from landline.observe import log_to_stderr  # before anything that logs: see there

        log_to_stderr(settings.log_level)
        from landline.commands.running import run
        from landline.demo.server import Demo

        warn_of_unknown_variables(lambda line: click.echo(f"landline: {line}", err=True))
        shown = Demo(settings)
        run(
            shown,
            lambda: click.echo(f"\nLandline's demo is at {shown.url}\nCtrl-C stops it.\n"),
            lambda: settings_from(flags, _DEFAULTS | os.environ),
        )
