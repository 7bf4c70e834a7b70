"""`landline serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from landline.commands.groups import BySubject
from landline.commands.options import exit_codes, settings_flags
from landline.config import settings_from


@click.command(cls=BySubject)
@click.option("--config", type=click.Path(path_type=Path), envvar="LANDLINE_CONFIG", help="TOML file with settings.")
@settings_flags()
def serve(config: Path | None, **flags: Any) -> None:
    """Run the server until SIGTERM or Ctrl-C."""
    with exit_codes():
        settings = settings_from(flags, os.environ, config)
        from landline.observe import log_to_stderr  # before anything that logs: see there

        log_to_stderr(settings.log_level)
        from landline.commands.running import run_server

        run_server(settings, lambda: settings_from(flags, os.environ, config))
