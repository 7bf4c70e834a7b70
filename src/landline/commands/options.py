"""Options that several commands have."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints

import click
import msgspec
from msgspec import Meta

from landline.config import Settings, description, reason
from landline.errors import StartupError

_NEVER_FLAGS = frozenset(("secret", "admin_secret", "bot_app_secret", "bots"))
"""A command line is public, and has no tables."""

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print everything there is to know, as JSON.")


def properties(kind: type[msgspec.Struct], *besides: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
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


def given(said: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in said.items() if value is not None}


def settings_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Every setting as a flag, besides secrets: a command line is public."""
    for name in reversed(Settings.__struct_fields__):
        if name not in _NEVER_FLAGS:
            flag = f"--{name.replace('_', '-')}"
            command = click.option(flag, name, default=None, metavar="VALUE", help=description(name))(command)
    return command


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """A start that fails says so in one line: 2 for the configuration, 3 for the data directory."""
    try:
        yield
    except StartupError as error:
        click.echo(f"landline: {error.message}", err=True)
        sys.exit(error.exit_code)
