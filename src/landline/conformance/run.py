"""Running checks, one after the other, and what becomes of each."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from landline.conformance.checks import Check
from landline.conformance.expect import shown
from landline.conformance.subject import Subject

_PATIENCE_S = 60.0
_SLOW_PATIENCE_S = 300.0


class Outcome(enum.Enum):
    """What became of a check. What was not run has not passed."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Result:
    """One line of the table. `reason` is empty where it passed."""

    check: Check
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0


async def run(checks: Iterable[Check], subject: Subject, *, slow: bool = False) -> AsyncIterator[Result]:
    """Run what can be run, in this order."""
    for check in checks:
        missing = check.missing(subject, slow=slow)
        if missing is not None:
            yield Result(check, Outcome.NOT_RUN, missing)
        else:
            yield await run_one(check, subject)


async def run_one(check: Check, subject: Subject) -> Result:
    """Run one that can be run. Whatever it raises is its failure: the suite goes on."""
    begun = time.monotonic()
    try:
        async with asyncio.timeout(_SLOW_PATIENCE_S if check.slow else _PATIENCE_S):
            await check.run(subject)
        outcome, reason = Outcome.PASSED, ""
    except AssertionError as error:
        outcome, reason = Outcome.FAILED, shown(str(error))
    except TimeoutError:
        outcome, reason = Outcome.FAILED, "it took too long"
    except Exception as error:  # noqa: BLE001  # a server that breaks in an unexpected way fails this check only
        outcome, reason = Outcome.FAILED, shown(f"{type(error).__name__}: {error}")
    if subject.maybe_bot is not None:
        await subject.maybe_bot.behave()
    return Result(check, outcome, reason, time.monotonic() - begun)
