"""`tests/bots/echo_bot.py`, a bot on the real SDK, in a process of its own: stopped, killed, started again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import aiohttp

from support.landline import free_port

_ROOT = Path(__file__).parents[2]
_PYTHON = _ROOT / ".tools" / "bots" / "bin" / "python"
_SOURCE = _ROOT / "tests" / "bots" / "echo_bot.py"


class RealBot:
    """`async with RealBot(tmp_path) as bot:` listens at `bot.endpoint`; its conversation references are kept in `data`.

    Its commands stand in the docstring of `echo_bot.py`. `data` must exist; log and references go there.
    """

    def __init__(self, data: Path, *, port: int | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment or {})
        self.port = port or free_port()
        self.references_path = data / "echo-bot-references.json"
        self.log_path = data / "echo-bot.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        """The messaging endpoint."""
        return f"{self.url}/api/messages"

    @property
    def log(self) -> str:
        """Everything it has printed since the first start: tracebacks of failed turns, above all."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    async def start(self, deadline_s: float = 30) -> RealBot:
        """Start the process and wait until it answers."""
        if not _PYTHON.exists():
            raise AssertionError(f"there is no {_PYTHON.relative_to(_ROOT)}: run `make test` once, it installs the SDK")
        environment = os.environ | self._environment | {"ECHO_BOT_REFERENCES": str(self.references_path)}
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                _PYTHON, _SOURCE, str(self.port), stdout=log, stderr=log, env=environment
            )
        try:
            async with asyncio.timeout(deadline_s):
                await self._until_healthy(self._process)
        except TimeoutError:
            raise AssertionError(f"the bot was not healthy in {deadline_s} s:\n{self.log}") from None
        return self

    async def _until_healthy(self, process: asyncio.subprocess.Process) -> None:
        async with aiohttp.ClientSession() as session:
            while process.returncode is None:
                try:
                    async with session.get(f"{self.url}/health") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError(f"the bot exited with {process.returncode}:\n{self.log}")

    async def speak(self, conversation_id: str, text: str) -> str:
        """Make the bot say `text` proactively; answers the activity's id. AssertionError if the channel refused it."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/proactive", json={"conversationId": conversation_id, "text": text}) as answer,
        ):
            if answer.status != 200:
                raise AssertionError(f"the bot could not speak ({answer.status}):\n{self.log}")
            return str((await answer.json())["id"])

    async def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """`kill -9`."""
        await self._end(signal.SIGKILL)

    async def restart(self, *, kill: bool = False) -> None:
        """End it and start it again on the same port, with the references it has saved."""
        await (self.kill() if kill else self.stop())
        await self.start()

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.send_signal(how)
            await asyncio.wait_for(process.wait(), 20)

    async def __aenter__(self) -> RealBot:
        try:
            return await self.start()
        except BaseException:
            await self.kill()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()
