"""Each statement about the client is carried by a test, and each number that a test carries is a statement."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SPEC = HERE.parents[1] / "docs" / "spec" / "client.md"


def test_each_number_has_a_statement_and_a_test() -> None:
    stated = [int(number) for number in re.findall(r"^\*\*C(\d+)\.\*\*", SPEC.read_text("utf-8"), re.MULTILINE)]
    marks = [
        number
        for file in sorted(HERE.glob("test_*.py"))
        for found in re.findall(r"^ *@pytest\.mark\.client_item\(([\d, ]+)\)", file.read_text("utf-8"), re.MULTILINE)
        for number in re.findall(r"\d+", found)
    ]
    assert stated == list(range(1, len(stated) + 1))
    assert {int(number) for number in marks} == set(stated)


def test_importing_the_client_is_light() -> None:
    heavy = ["aiohttp", "landline.channel", "landline.server", "landline.wire", "apsw", "uvicorn", "structlog", "click"]
    program = f"import landline.client, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
