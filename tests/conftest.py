"""The order of the files, the seed of what is drawn at random, and the log as it was before each test."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from random import Random

import pytest
import structlog
from structlog._config import BoundLoggerLazyProxy

from landline import observe

LONGEST = ("demo", "bots", "durability", "simulation", "directlinejs", "conformance", "checklist")
"""Folders whose files take longest. They are begun first, so that no worker is alone with one of them in the end."""


def pytest_configure() -> None:
    """Workers inherit the seed."""
    if os.environ.get("LANDLINE_SOAK") == "1":
        os.environ.setdefault("LANDLINE_SEED", str(Random().randrange(1 << 32)))


def pytest_report_header() -> str | None:
    seed = os.environ.get("LANDLINE_SEED")
    return seed and f"LANDLINE_SEED={seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def folder(item: pytest.Item) -> int:
        name = item.path.relative_to(config.rootpath / "tests").parts[0]
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=folder)


@pytest.fixture(autouse=True)
def log_is_as_before() -> Iterator[None]:
    """A command that is run in this process sends the log to standard error, and loggers remember where to. Later tests
    capture what is logged."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        logging.root.handlers = [each for each in logging.root.handlers if not isinstance(each, observe.FromLibraries)]
        for module in list(sys.modules.values()):
            for value in list(vars(module).values()):
                if isinstance(value, BoundLoggerLazyProxy):
                    vars(value).pop("bind", None)
