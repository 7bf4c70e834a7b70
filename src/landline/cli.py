"""The `landline` command: its names, and where each lives. A command's module is imported when it is asked for.

So `landline --version` starts nearly as fast as Python itself, and `landline serve` loads nothing that only others need
(ADR 33).
"""

from __future__ import annotations

import click

from landline import __version__
from landline.commands.groups import LazyGroup

COMMANDS = {
    "Serving": {
        "serve": "landline.commands.serve:serve",
        "try": "landline.commands.demo:try_bot",
        "demo": "landline.commands.demo:demo",
        "dev-cert": "landline.commands.dev_cert:dev_cert",
    },
    "Bots and sites": {
        "bot": "landline.commands.bots:bot",
        "site": "landline.commands.sites:site",
        "secret": "landline.commands.secrets:secret",
        "signing-key": "landline.commands.signing_keys:signing_key",
        "token": "landline.commands.tokens:token",
    },
    "Conversations": {
        "redeliver": "landline.commands.conversations:redeliver",
        "delete": "landline.commands.conversations:delete",
        "forget": "landline.commands.conversations:forget",
    },
    "The store of a server that does not run": {
        "doctor": "landline.commands.store:examine",
        "restore": "landline.commands.store:restore",
    },
    "The store in PostgreSQL": {
        "store": "landline.commands.store:store",
    },
    "Checking a server": {
        "conformance": "landline.conformance.command:conformance",
    },
}
"""By subject: the name of each command, and the module and name of what it runs."""


@click.group(
    cls=LazyGroup,
    sections=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="landline")
def main() -> None:
    """A Direct Line 3.0 channel that you run yourself."""
