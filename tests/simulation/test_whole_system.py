"""The whole system under a fake clock, seed by seed (docs/architecture.md, what must always hold: 2 to 5, 8).

A failing seed is printed with the promise that was broken. It is the first one of a run from there, with a debugger if
you like:

    LANDLINE_SEED=4711 python -m pytest tests/simulation

The same seed is the same world on every machine, as long as neither the world nor the machines have changed.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter

import pytest

from simulation.planted_bugs import PLANTED
from simulation.world import BrokenPromise, World
from support.rounds import SEED, SOAK, rounds

WORLDS = range(SEED, SEED + rounds(2_000, 500_000))
BATCH = 500
ENOUGH_FAILURES = 5
TROUBLES = {
    "closed with 1013",
    "closed with 4409",
    "delete shown",
    "dropped",
    "joined late",
    "read failed",
    "rolled back",
    "ticket expired",
    "token expired",
    "transient shown",
    "update shown",
}


def broken(seed: int) -> str | None:
    """What the world of this seed broke, or None."""
    try:
        World(seed).run()
    except BrokenPromise as promise:
        return f"seed {seed}: {promise}"
    return None


def broken_in(seeds: range) -> list[str]:
    """The same for many; a process works on one such batch at a time."""
    return [failure for failure in map(broken, seeds) if failure]


def test_every_session_delivers_what_its_log_says_in_order_and_once() -> None:
    batches = [WORLDS[first : first + BATCH] for first in range(0, len(WORLDS), BATCH)]
    failures: list[str] = []
    with multiprocessing.get_context("spawn").Pool(None if SOAK else 1) as pool:
        for found in pool.imap(broken_in, batches):
            failures += found
            if len(failures) >= ENOUGH_FAILURES:
                break
    assert not failures, "\n".join(failures[:ENOUGH_FAILURES])


def test_the_trouble_that_the_simulation_is_about_does_happen() -> None:
    happened: Counter[str] = Counter()
    for seed in range(200):
        world = World(seed)
        world.run()
        happened += world.happened
    assert happened.keys() >= TROUBLES


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found_within_300_seeds(bug: str) -> None:
    for seed in range(300):
        try:
            World(seed, PLANTED[bug]).run()
        except BrokenPromise:
            return
    pytest.fail(f"{bug} survived 300 seeds")
