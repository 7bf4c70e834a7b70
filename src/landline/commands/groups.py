"""The kinds of click commands that ours are: groups that import late, and commands whose ids may look like options."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from itertools import islice
from typing import Any

import click


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, and lists its commands by subject."""

    def __init__(self, *, sections: Mapping[str, Mapping[str, str]], **attributes: Any) -> None:
        """`sections` has for each subject the commands by name, each as `module:attribute`."""
        super().__init__(**attributes)
        self._sections = sections
        self._places = {name: place for names in sections.values() for name, place in names.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in their order."""
        return [*self._places, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None where there is none."""
        place = self._places.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each subject with its commands; what was added besides comes last."""
        named = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        room = formatter.width - 6 - max(map(len, named))
        sections: dict[str, list[str]] = {subject: list(names) for subject, names in self._sections.items()}
        sections["Commands"] = list(self.commands)
        for subject, names in sections.items():
            found = ((name, named[name]) for name in names)
            rows = [(name, each.get_short_help_str(room)) for name, each in found if each is not None]
            if rows:
                with formatter.section(subject):
                    formatter.write_dl(rows, col_max=max(map(len, named)))


class Command(click.Command):
    """A command that takes what begins with a hyphen for an option only if it is one of its own.

    Of the ids and marks that we make up, one in 64 begins so, and people may name a bot as they like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What click does, with the options in front and the ids behind `--`, where they are left alone."""
        own = {
            name: each
            for each in self.get_params(ctx)
            if isinstance(each, click.Option)
            for name in (*each.opts, *each.secondary_opts)
        }
        options: list[str] = []
        ids: list[str] = []
        given = iter(args)
        for word in given:
            option = own.get(word.partition("=")[0])
            if word == "--":
                ids += given
            elif option is None:
                ids.append(word)
            else:
                options.append(word)
                if not option.is_flag and "=" not in word:
                    options += islice(given, 1)
        return super().parse_args(ctx, [*options, "--", *ids])


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


class Option(click.Option):
    """An option that `--help` shows under its subject."""

    def __init__(self, *declarations: Any, subject: str, **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self.subject = subject


class BySubject(click.Command):
    """A command whose options are listed by subject, those without one at the end."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does it, in several sections."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for each in self.get_params(ctx):
            record = each.get_help_record(ctx)
            if record is not None:
                subject = each.subject if isinstance(each, Option) else "Besides"
                sections.setdefault(subject, []).append(record)
        besides = sections.pop("Besides", [])
        for subject, records in [*sections.items(), ("Besides", besides)]:
            with formatter.section(subject):
                formatter.write_dl(records)
