"""Checks: what a check is, what it needs, and how one is written.

A check is a coroutine function that takes a `Subject` and returns if the statement holds. Its docstring is the
statement, word for word as in section 14 of the specification; a second paragraph says where the check stops short of
it. It is registered in the group of its module:

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
    """One numbered statement. `note`: where the check stops short of it; empty if nowhere. `slow` ones take up to
    minutes at the defaults of a server."""

    number: int
    group: str
    statement: str
    note: str
    run: Run
    needs: frozenset[Need]
    slow: bool

    @property
    def kind(self) -> str:
        """`wire`, or what it needs most; and what else it needs."""
        most = next((need for need in (Need.CONTROL, Need.BOT) if need in self.needs), None)
        others = sorted(need.value for need in self.needs - {Need.CONTROL, Need.BOT})
        return " and ".join(["wire" if most is None else most.value, *others])

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
            statement, _, note = (inspect.getdoc(run) or "").partition("\n\n")
            statement, note = " ".join(statement.split()), " ".join(note.split())
            self.checks.append(Check(number, self.letter, statement, note, run, frozenset(needs), slow))
            return run

        return register
