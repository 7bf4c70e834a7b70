"""The tree of errors is what its docstring shows, and everything in it has something to say."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from landline import errors
from landline.errors import LandlineError

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LandlineError)]


def drawn() -> Iterator[tuple[str, str]]:
    """Each class of the tree in the docstring with the class that it hangs from, in the order of the drawing."""
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ((?:│   |    )*)(?:[├└]── )?([A-Z]\w+)(?:  |$)", line)
        if found:
            depth = len(found[1]) // 4 + ("── " in line)
            above[depth:] = [found[2]]
            yield found[2], above[depth - 1] if depth else "Exception"


def test_the_drawing_is_the_tree() -> None:
    tree = list(drawn())
    assert len(tree) == len(dict(tree)), "a class is drawn twice"
    assert dict(tree) == {kind.__name__: kind.__base__.__name__ for kind in ALL}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_says_in_one_line_what_happened(kind: type[LandlineError]) -> None:
    needed = {
        errors.MethodNotAllowed: (("GET",),),
        errors.BotRejected: (500,),
        errors.RateLimited: (1.0,),
        errors.RangeNotSatisfiable: (0,),
    }
    error = kind(*needed.get(kind, ()))
    assert vars(kind)["__doc__"], "an error may not borrow its message"
    assert error.message == str(error) == kind.__doc__
    assert re.fullmatch(r"\S[^\n]+\S", error.message)


def test_an_own_message_replaces_the_default() -> None:
    assert str(errors.BadArgument("'user.id' must be a string")) == "'user.id' must be a string"


def test_a_retry_is_promised_only_where_it_can_help() -> None:
    hopeful = {kind.__name__ for kind in ALL if kind.retry}
    assert hopeful == {
        "Draining",
        "IssuerUnavailable",
        "RateLimited",
        "TooManyConnections",
        "StoreUnavailable",
        "DeadlinePassed",
        "OutcomeUnknown",
    }
    assert errors.StoreUnavailable().retry
    assert not errors.StoreUnavailable(retry=False).retry


def test_exit_codes_tell_the_causes_of_a_failed_start_apart() -> None:
    codes = {kind: kind.exit_code for kind in errors.StartupError.__subclasses__()}
    assert codes == {errors.ConfigurationError: 2, errors.DataDirectoryError: 3}


def test_what_a_bot_says_is_kept_only_up_to_a_bound() -> None:
    assert len(errors.BotRejected(500, b"x" * 10_000).body) == 4096
