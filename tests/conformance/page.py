"""Writes `docs/conformance.md`: each numbered statement, and what checks it. `make statements` runs it."""

from __future__ import annotations

from pathlib import Path

from landline.conformance.checks import Check
from landline.conformance.suite import CHECKS, GROUPS
from support.statements import carried, statements

PAGE = Path(__file__).parents[2] / "docs/conformance.md"

_HEAD = """# Conformance

Section 14 of the [client-side specification](spec/direct-line-3.0.md#14-conformance-checklist) has {all} numbered
statements. {checked} of them are checked over the wire by `landline conformance`, against any Direct Line server; how
to run it stands in [Commands](reference/commands.md#landline-conformance). Our own server is checked with it in every
test run (`tests/conformance/test_conformance.py`), and the suite itself with mistakes that are planted on purpose
(`tests/conformance/planted.py`).

*checked by* says what a check needs:

- **wire**: a server and a secret. The bot behind it has to take what it gets.
- **bot**: the suite's own bot, which the server has to be configured to call (`--bot-port`).
- **control**: a way to start servers with settings, to end them, or to change their sites. Only our own tests have
  that, so against another server these are *not run*.
- a test file: what no suite can see from outside, or what needs a real DirectLineJS or Web Chat.

*slow* ones take as long as the time-outs of a server at its defaults (`--slow`). A note says where a check stops short
of its statement. This page is made by `make statements`, and a test fails when it is out of date.
"""


def page() -> str:
    """The whole page."""
    checks = {check.number: check for check in CHECKS}
    titles = {group.letter: group.title for group in GROUPS}
    stated = statements("item")
    lines = [_HEAD.format(all=len(stated), checked=len(checks))]
    for letter, numbers in _sections(checks).items():
        lines += [f"## {letter}. {titles[letter]}", "", "| no. | statement | checked by |", "|---|---|---|"]
        lines += [
            f"| {number} | {_cell(stated[number])} | {_state(number, checks.get(number))} |" for number in numbers
        ]
        lines.append("")
    return "\n".join(lines)


def _sections(checks: dict[int, Check]) -> dict[str, list[int]]:
    """The numbers of each group, in the order of the specification: a group begins with its lowest check."""
    found: dict[str, list[int]] = {}
    letter = GROUPS[0].letter
    begins = {min(check.number for check in group.checks): group.letter for group in GROUPS}
    for number in statements("item"):
        letter = begins.get(number, letter)
        found.setdefault(letter, []).append(number)
    return found


def _state(number: int, check: Check | None) -> str:
    files = sorted({f"`tests/{name.partition('::')[0]}`" for name in carried("item").get(number, ())})
    if check is None:
        return ", ".join(files) or "not yet"
    words = [check.kind, "slow"] if check.slow else [check.kind]
    if not check.note:
        return ", ".join(words)
    return f"{', '.join(words)}. {check.note} The rest: {', '.join(files) or 'not yet'}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
