"""Checks: what a check is, what it needs, and how one is written.

A check is a coroutine function that takes a `Subject` and returns if the statement holds. Its docstring is the
statement, as in section 14 of the specification. It is registered in the group of its module:

    group = Group("A", "Transport, errors, CORS")

    @group.check(4)
    async def unknown_path(s: Subject) -> None:
        '''Unknown path under `/v3/directline` → 404 `BadArgument`.'''
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from landline.conformance.subject import Subject


class Need(enum.Enum):
    """What a check needs besides a server, a secret, and a bot behind it that takes what it gets."""

    BOT = "bot"
    """The suite's own bot, which the server has to be configured to call."""
    CONTROL = "control"
    """A way to start servers, with settings, and to end them."""
    SECOND_SECRET = "second secret"  # noqa: S105  # a name
    """Another secret of the same bot."""
    FOREIGN_SECRET = "secret of another bot"  # noqa: S105  # a name


Run = Callable[[Subject], Awaitable[None]]


@dataclass(frozen=True)
class Check:
    """One numbered statement. `slow` ones take up to minutes at the defaults of a server."""

    number: int
    group: str
    statement: str
    run: Run
    needs: frozenset[Need]
    slow: bool

    @property
    def kind(self) -> str:
        """`wire`, or what it needs most."""
        for need in (Need.CONTROL, Need.BOT):
            if need in self.needs:
                return str(need.value)
        return "wire"

    def missing(self, subject: Subject, *, slow: bool) -> str | None:
        """Why it cannot be run against `subject`; None if it can. `slow`: the time does not matter."""
        there = {
            Need.BOT: subject.maybe_bot,
            Need.CONTROL: subject.control,
            Need.SECOND_SECRET: subject.second_secret,
            Need.FOREIGN_SECRET: subject.foreign_secret,
        }
        lacking = [need.value for need in Need if need in self.needs and there[need] is None]
        if lacking:
            return f"needs: {', '.join(lacking)}"
        if self.slow and not slow and subject.control is None:
            return "slow: run it with --slow"
        return None


@dataclass(frozen=True)
class Group:
    """The checks of one letter of section 14."""

    letter: str
    title: str
    checks: list[Check] = field(default_factory=list)

    def check(self, number: int, *needs: Need, slow: bool = False) -> Callable[[Run], Run]:
        """Register a check under its number."""

        def register(run: Run) -> Run:
            statement = " ".join((inspect.getdoc(run) or "").split())
            self.checks.append(Check(number, self.letter, statement, run, frozenset(needs), slow))
            return run

        return register
