"""The suite against a server that runs somewhere: what `landline conformance` does once it knows what to check."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import click
from rich.console import Console

from landline.conformance import report
from landline.conformance.checks import Check
from landline.conformance.run import Outcome, Result, run
from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.subject import Subject
from landline.conformance.suite import CHECKS, chosen

_HELLO_S = 4.0
"""Within this a server tells its bot of a new conversation."""
_HOLDS, _FAILED, _UNUSABLE = 0, 1, 2
"""Exit codes: every statement holds; one does not; nothing could be checked."""


def checks_named(only: str) -> list[Check]:
    """The checks of these groups and numbers, such as `A,B,73-98`; all, where none is named. Raises `ValueError`."""
    return chosen(only) if only else list(CHECKS)


def check(
    domain: str,
    secrets: tuple[str, str | None, str | None],
    checks: list[Check],
    bot_port: int | None,
    *,
    slow: bool,
    json_file: Path | None,
) -> int:
    """Run the checks and print what comes of each; answers the exit code. `secrets` are the site's, another one of it,
    and one of another bot."""
    subject = Subject(domain, *secrets)
    try:
        results = asyncio.run(_run(subject, checks, bot_port, slow))
    except (aiohttp.ClientError, OSError, LookupError) as error:
        click.echo(f"landline: {error}", err=True)
        return _UNUSABLE
    if json_file is not None:
        json_file.write_text(report.as_json(domain, results) + os.linesep, "utf-8")
    return _FAILED if any(result.outcome is Outcome.FAILED for result in results) else _HOLDS


async def _run(subject: Subject, checks: list[Check], bot_port: int | None, slow: bool) -> list[Result]:
    console = Console(highlight=False)
    results = []
    async with AsyncExitStack() as closers:
        if bot_port is not None:
            subject.maybe_bot = await closers.enter_async_context(ScriptedBot(bot_port))
        await closers.enter_async_context(subject.open())
        await _say_hello(subject)
        async for result in run(checks, subject, slow=slow):
            console.print(report.line(result), soft_wrap=True)
            results.append(result)
    report.show(console, results)
    return results


async def _say_hello(subject: Subject) -> None:
    """One start, before hundreds of them fail for one reason. Raises LookupError with it."""
    answer = await subject.client.start()
    if answer.status != 201:
        raise LookupError(f"{subject.domain} does not start a conversation: {answer.status} {answer.body[:200]!r}")
    if subject.maybe_bot is not None:
        try:
            await subject.maybe_bot.wait_for(lambda each: each.conversation_id == answer.conversation_id, _HELLO_S)
        except AssertionError:
            raise LookupError(f"the server does not call the bot at {subject.maybe_bot.endpoint}") from None
