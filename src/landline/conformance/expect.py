"""What a check expects, and how it says that it was disappointed. No `assert`: it would be silent under `python -O`."""

from __future__ import annotations

from typing import Protocol, TypeVar

_SHOWN = 300
"""How much of a value is shown. Enough to recognise it, and short enough for a table."""


class Violation(AssertionError):
    """A statement does not hold"""


class Answered(Protocol):
    """An answer, as far as it is looked at here."""

    @property
    def status(self) -> int:
        """Its HTTP status."""
        ...

    @property
    def code(self) -> str:
        """Its error code; fails where there is none."""
        ...


_A = TypeVar("_A", bound=Answered)


def expect(condition: object, what: object) -> None:
    """Raises `Violation` unless `condition` holds; `what` says what was expected, or shows what came instead."""
    if not condition:
        raise Violation(shown(what))


def same(seen: object, wanted: object, what: str = "") -> None:
    """Raises `Violation` unless the two are equal."""
    if seen != wanted:
        raise Violation(f"{what + ': ' if what else ''}{shown(seen)} instead of {shown(wanted)}")


def accepted(answer: _A, *statuses: int) -> _A:
    """The answer, if it has one of the statuses, 200 unless others are given."""
    wanted = statuses or (200,)
    if answer.status not in wanted:
        raise Violation(f"{shown(answer)} instead of {' or '.join(map(str, wanted))}")
    return answer


def refused(answer: Answered, status: int, code: str) -> None:
    """Raises `Violation` unless the answer is this error (specification 3.5)."""
    if answer.status != status:
        raise Violation(f"{shown(answer)} instead of {status} {code}")
    same(answer.code, code, f"code of the {status}")


def shown(value: object) -> str:
    """A value in a line."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
