"""`landline conformance`: the checks against a server that runs somewhere."""

from __future__ import annotations

import asyncio
import os
import sys
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

_PREFIX = "/v3/directline"
_HELLO_S = 4.0
"""Within this a server tells its bot of a new conversation."""
_FAILED, _UNUSABLE = 1, 2
"""Exit codes: a statement does not hold; nothing could be checked."""


@click.command()
@click.option("--url", required=True, help="Where the server is, with or without /v3/directline behind it.")
@click.option("--secret", envvar="LANDLINE_SECRET", required=True, help="A secret. Better: LANDLINE_SECRET.")
@click.option("--second-secret", help="Another secret of the same site.")
@click.option("--other-bot-secret", help="A secret of another bot.")
@click.option("--bot-port", type=click.IntRange(1, 65535), help="Where the suite's bot listens; the server calls it.")
@click.option("--only", default="", metavar="A,B,73-98", help="Groups and numbers to run. Default: all.")
@click.option("--slow", is_flag=True, help="Run what takes as long as the server's time-outs, too.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the results there.")
def conformance(
    url: str,
    secret: str,
    second_secret: str | None,
    other_bot_secret: str | None,
    bot_port: int | None,
    only: str,
    slow: bool,
    json_file: Path | None,
) -> None:
    """Check a Direct Line server, statement by statement, over the wire.

    The bot behind the server has to take what it gets. For the checks that need more, start the server with
    http://127.0.0.1:PORT/api/messages as its bot and give the PORT: the suite listens there.
    """
    try:
        checks = chosen(only) if only else list(CHECKS)
    except ValueError as error:
        raise click.BadParameter(f"{error} is neither a group nor a number", param_hint="--only") from error
    domain = url.rstrip("/").removesuffix(_PREFIX) + _PREFIX
    subject = Subject(domain, secret, second_secret, other_bot_secret)
    try:
        results = asyncio.run(_run(subject, checks, bot_port, slow))
    except (aiohttp.ClientError, OSError, LookupError) as error:
        click.echo(f"landline: {error}", err=True)
        sys.exit(_UNUSABLE)
    if json_file is not None:
        json_file.write_text(report.as_json(domain, results) + os.linesep, "utf-8")
    if any(result.outcome is Outcome.FAILED for result in results):
        sys.exit(_FAILED)


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
