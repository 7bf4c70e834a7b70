"""The checks say what the specification says, and the page says what the checks are."""

from __future__ import annotations

import pytest

from conformance.page import PAGE, page
from landline.conformance.checks import Check
from landline.conformance.suite import CHECKS, GROUPS, chosen
from support.statements import carried, statements


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.number))
def test_check_states_its_number_word_for_word(check: Check) -> None:
    assert check.statement == statements("item")[check.number].strip()


def test_no_number_has_two_checks() -> None:
    numbers = [check.number for check in CHECKS]
    assert numbers == sorted(set(numbers)), "in the order of the specification"


def test_what_a_check_leaves_out_is_shown_by_a_test() -> None:
    assert [check.number for check in CHECKS if check.note and check.number not in carried("item")] == []


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make statements`"


@pytest.mark.parametrize(
    ("only", "numbers"),
    [("73", {73}), ("73-75, 1", {1, 73, 74, 75}), ("c", set(range(42, 56))), ("A,23", {*range(1, 24)}), ("999", set())],
)
def test_checks_can_be_chosen_by_group_and_number(only: str, numbers: set[int]) -> None:
    assert {check.number for check in chosen(only)} == numbers


@pytest.mark.parametrize("only", ["Z", "1-", "a-b", "1-2-3", "-3"])
def test_what_is_neither_is_named(only: str) -> None:
    with pytest.raises(ValueError, match=only):
        chosen(only)


def test_groups_are_those_of_the_specification() -> None:
    assert "".join(group.letter for group in GROUPS) == "ABCDEFGHIJK"
