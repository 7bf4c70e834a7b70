"""Counts what Autobahn's fuzzing client found, a row for each group: `python tests/wire/autobahn.py`.

It ends with 1 when a case failed, or when the report has none. docs/websocket.md says how the client is run.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

REPORT = Path("build/autobahn/index.json")
VERDICTS = {"OK": "passed", "NON-STRICT": "non-strict", "INFORMATIONAL": "informational"}
"""The verdicts that are no failure, by the suite's own words."""


def counted(report: dict[str, dict[str, str]]) -> dict[int, Counter[str]]:
    """Verdicts by group. A case counts as its worse half: how it behaved, or how it closed."""
    groups: dict[int, Counter[str]] = {}
    for case, result in report.items():
        verdicts = {VERDICTS.get(result[half], "failed") for half in ("behavior", "behaviorClose")}
        worst = next(each for each in ("failed", "non-strict", "informational", "passed") if each in verdicts)
        groups.setdefault(int(case.split(".")[0]), Counter())[worst] += 1
    return dict(sorted(groups.items()))


def main() -> int:
    (report,) = json.loads(REPORT.read_text("utf-8")).values()
    columns = ("passed", "non-strict", "informational", "failed")
    print("| group | cases | " + " | ".join(columns) + " |")
    print("|---" * (2 + len(columns)) + "|")
    groups = counted(report)
    for group, found in groups.items():
        print(f"| {group} | {found.total()} | " + " | ".join(str(found[each]) for each in columns) + " |")
    return int(not groups or any(found["failed"] for found in groups.values()))


if __name__ == "__main__":
    sys.exit(main())
