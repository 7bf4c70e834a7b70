"""All checks, in the order of the specification; and which of them somebody wants."""

from __future__ import annotations

import re

from landline.conformance import (
    activities,
    credentials,
    end_to_end,
    lenient,
    reading,
    reconnect,
    revision_2,
    send,
    start,
    streams,
    tokens,
    transport,
    upload,
)
from landline.conformance.checks import Check

GROUPS = tuple(
    module.group
    for module in (
        transport,
        credentials,
        tokens,
        start,
        send,
        upload,
        reading,
        reconnect,
        streams,
        end_to_end,
        lenient,
        revision_2,
        activities,
    )
)

CHECKS: tuple[Check, ...] = tuple(
    sorted((check for group in GROUPS for check in group.checks), key=lambda check: check.number)
)


def chosen(only: str) -> list[Check]:
    """The checks that are meant by `A,B,73-98`: groups by their letters, checks by their numbers.

    Raises ValueError, with the part that means nothing.
    """
    letters = {group.letter for group in GROUPS}
    wanted: set[int] = set()
    for part in filter(None, (each.strip() for each in only.split(","))):
        if part.upper() in letters:
            wanted |= {check.number for check in CHECKS if check.group == part.upper()}
            continue
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII)
        if span is None:
            raise ValueError(part)
        wanted |= set(range(int(span[1]), int(span[2] or span[1]) + 1))
    return [check for check in CHECKS if check.number in wanted]
