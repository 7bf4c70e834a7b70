"""The conformance suite against our own server: the same checks that anybody can run, one test for each number."""

from __future__ import annotations

import pytest

from landline.conformance.checks import Check
from landline.conformance.run import Outcome, run_one
from landline.conformance.subject import Subject
from landline.conformance.suite import CHECKS

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.group}-{check.number}")
async def test_statement_holds(subject: Subject, check: Check) -> None:
    assert check.missing(subject, slow=True) is None
    result = await run_one(check, subject)
    assert result.outcome is Outcome.PASSED, f"{check.number}. {check.statement} But: {result.reason}"
