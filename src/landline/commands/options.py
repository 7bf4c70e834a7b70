"""Options that several commands have."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import chain
from typing import Any, get_type_hints

import click
import msgspec
from msgspec import Meta

from landline.commands.groups import Option
from landline.commands.subjects import SUBJECTS
from landline.config import Settings, choices, choices_of, description, is_switch, unknown_variables, variable
from landline.core.units import examples, measured
from landline.core.wording import in_words
from landline.errors import StartupError

_NEVER_FLAGS = frozenset(("secret", "admin_secret", "bot_app_secret", "bots"))
"""A command line is public, and has no tables."""

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print everything there is to know, as JSON.")


# Deleting


def deleting(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command whose effect cannot be undone: see `is_wanted`."""
    command = click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")(command)
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def is_wanted(what: str, *, yes: bool, dry_run: bool) -> bool:
    """Whether to delete `what`. Asks at a terminal, unless `yes`; where nobody can be asked it ends the command with 2.
    With `dry_run` it says what would go, and nothing is wanted."""
    if dry_run:
        click.echo(f"Would delete {what}.")
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"nobody can be asked here; --yes deletes {what}")
    return click.confirm(f"Delete {what}?", err=True)


# What can be said about a bot or a site


def properties(kind: type[msgspec.Struct], *besides: str) -> Decorator:
    """What can be said about a bot or a site, each as an option. None is what was not given."""
    hints = get_type_hints(kind, include_extras=True)

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(kind.__struct_fields__):
            if name not in besides:
                switch = "bool" in str(hints[name])
                command = click.option(
                    *_flags(name, switch=switch),
                    name,
                    default=None,
                    metavar=None if switch else _metavar(name, choices_of(hints[name])),
                    callback=None if switch else _converter(name, hints[name]),
                    help=_description(hints[name]),
                )(command)
        return command

    return add


def _description(hint: Any) -> str:
    return next(str(part.description) for part in hint.__metadata__ if isinstance(part, Meta) and part.description)


def _converter(name: str, hint: Any) -> Callable[[click.Context, click.Parameter, str | None], object]:
    def convert(context: click.Context, parameter: click.Parameter, text: str | None) -> object:
        if text is None:
            return None
        given = [part.strip() for part in text.split(",") if part.strip()] if "tuple" in str(hint) else text
        try:
            value = measured(name, given) if isinstance(given, str) else given
            return msgspec.to_builtins(msgspec.convert(value, hint, strict=False))
        except ValueError as error:  # msgspec's is one
            raise click.BadParameter(in_words(str(error))[1], context, parameter) from error

    return convert


def given(said: Mapping[str, object]) -> dict[str, object]:
    """Without what was not said."""
    return {name: value for name, value in said.items() if value is not None}


def _flags(name: str, *, switch: bool) -> tuple[str, ...]:
    flag = name.replace("_", "-")
    return (f"--{flag}/--no-{flag}",) if switch else (f"--{flag}",)


def _metavar(name: str, words: tuple[str, ...]) -> str:
    return "|".join(words) or ("DURATION" if examples(name)[:1] == "9" else "SIZE" if examples(name) else "VALUE")


# Settings


def settings_flags(**defaults: object) -> Decorator:
    """Every setting as a flag, besides secrets: a command line is public. `defaults` are those of this command, where
    they differ from the settings' own; the command sees to them itself."""
    subjects = {name: subject for subject, names in SUBJECTS.items() for name in names}
    known = [name for name in chain.from_iterable(SUBJECTS.values()) if name in Settings.__struct_fields__]
    others = [name for name in Settings.__struct_fields__ if name not in subjects]

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed([*known, *others]):
            if name not in _NEVER_FLAGS:
                switch = is_switch(name)
                default = defaults.get(name, _defaults()[name])
                command = click.option(
                    *_flags(name, switch=switch),
                    name,
                    cls=Option,
                    subject=subjects.get(name, "More settings"),
                    default=None,
                    metavar=None if switch else _metavar(name, choices(name)),
                    help=f"{description(name)} {_besides(name, default)}",
                )(command)
        return command

    return add


@cache
def _defaults() -> Mapping[str, object]:
    """Of each setting. To ask takes some milliseconds, since every type is read for it."""
    return {field.name: field.default for field in msgspec.structs.fields(Settings)}


def _besides(name: str, default: object) -> str:
    """What a setting is without the flag, and where else it can be said."""
    if default in (None, ()):
        return f"[{variable(name)}]"
    said = str(default).lower() if isinstance(default, bool) else default
    return f"[default: {said}; {variable(name)}]"


def warn_of_unknown_variables(warn: Callable[[str], None]) -> None:
    """Say what looks like a setting in the environment and is none: it has no effect, and may be misspelt."""
    for name, meant in unknown_variables(os.environ):
        warn(f"{name} is no setting, and has no effect" + (f": did you mean {meant}?" if meant else ""))


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """A start that fails says so in one line: 2 for the configuration, 3 for the data directory."""
    try:
        yield
    except StartupError as error:
        click.echo(f"landline: {error.message}", err=True)
        sys.exit(error.exit_code)
