"""Durations and sizes as people write them; a bare number stays what it was."""

from __future__ import annotations

import pytest

from landline.core.units import examples, measured


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("token_ttl_s", "10m", 600),
        ("token_ttl_s", "0.5h", 1800),
        ("token_ttl_s", "0.1s", 0.1),
        ("token_ttl_s", "10", "10"),
        ("token_ttl_s", "soon", "soon"),
        ("upload_bytes", "1MiB", 1 << 20),
        ("upload_bytes_total", "2 GB", 2_000_000_000),
        ("sends_per_s", "10m", "10m"),
        ("bot_name", "10m", "10m"),
    ],
)
def test_a_number_with_a_unit_is_one_of_the_unit_of_the_name(name: str, text: str, value: object) -> None:
    assert measured(name, text) == value


@pytest.mark.parametrize(("name", "text"), [("token_ttl_s", "10M"), ("token_ttl_s", "1w"), ("upload_bytes", "10m")])
def test_a_unit_that_does_not_belong_there_is_refused_with_those_that_do(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=examples(name)):
        measured(name, text)
