"""What a run found: a table for people, and JSON for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from landline.conformance.run import Outcome, Result

_STYLES = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.NOT_RUN: "yellow"}


def line(result: Result) -> Text:
    """One result while the rest is still running."""
    text = Text(f"{result.check.number:>4}  ")
    return text.append(f"{result.outcome.value:<8}", _STYLES[result.outcome]).append(f"  {result.check.statement}")


def table(results: Sequence[Result]) -> Table:
    """What needs looking at: what failed, and what was not run, each with its reason."""
    shown = Table(title="What did not pass", title_justify="left", show_lines=True)
    for heading in ("no.", "outcome", "statement", "reason"):
        shown.add_column(heading, no_wrap=heading != "statement" and heading != "reason", overflow="fold")
    for result in sorted(results, key=lambda each: (each.outcome is not Outcome.FAILED, each.check.number)):
        if result.outcome is not Outcome.PASSED:
            shown.add_row(
                f"{result.check.group}{result.check.number}",
                Text(result.outcome.value, _STYLES[result.outcome]),
                Text(result.check.statement),
                Text(result.reason),
            )
    return shown


def summary(results: Sequence[Result]) -> str:
    """How many passed, failed, and were not run."""
    counts = Counter(result.outcome for result in results)
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome)


def show(console: Console, results: Sequence[Result]) -> None:
    """The end of a run, for people."""
    if any(result.outcome is not Outcome.PASSED for result in results):
        console.print(table(results))
    console.print(summary(results))


def as_json(domain: str, results: Sequence[Result]) -> str:
    """The whole run, for machines."""
    return json.dumps(
        {
            "url": domain,
            "summary": {outcome.value: sum(each.outcome is outcome for each in results) for outcome in Outcome},
            "checks": [
                {
                    "number": each.check.number,
                    "group": each.check.group,
                    "statement": each.check.statement,
                    "note": each.check.note,
                    "outcome": each.outcome.value,
                    "reason": each.reason,
                    "seconds": round(each.seconds, 3),
                }
                for each in results
            ],
        },
        indent=2,
        ensure_ascii=False,
    )
