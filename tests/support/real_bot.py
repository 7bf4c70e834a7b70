"""The check bots on the real SDKs, each in a process of its own: stopped, killed, started again."""

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
_BOTS = _ROOT / "tests" / "bots"
_TOOLS = _ROOT / ".tools"
COMMANDS = {
    "bb-py": (str(_TOOLS / "bots" / "bin" / "python"), str(_BOTS / "bb_py.py")),
    "ag-py": (str(_TOOLS / "agents-bot" / "bin" / "python"), str(_BOTS / "ag_py.py")),
    "bb-js": ("node", str(_BOTS / "js" / "bb_js.mjs")),
    "ag-js": ("node", str(_BOTS / "js" / "ag_js.mjs")),
}
"""The bots by the SDK that they are built on: Bot Framework or Agents, Python or JavaScript."""


class RealBot:
    """`async with RealBot(tmp_path) as bot:` listens at `bot.endpoint`; its conversation references are kept in `data`.

    What it can be told stands in `tests/bots/checks.py`. `data` must exist; log and references go there.
    """

    def __init__(
        self,
        data: Path,
        sdk: str = "bb-py",
        *,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.sdk = sdk
        self.port = port or free_port()
        self.references_path = data / f"{sdk}-references.json"
        self.log_path = data / f"{sdk}.log"
        self._environment = dict(environment or {})
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
        needed = Path(COMMANDS[self.sdk][0]) if self.sdk.endswith("py") else _BOTS / "js" / "node_modules"
        if not needed.exists():
            raise AssertionError(f"there is no {needed.relative_to(_ROOT)}: run `make test` once, it installs the SDKs")
        environment = os.environ | {"CHECK_BOT_REFERENCES": str(self.references_path)} | self._environment
        environment.pop("PYTHONPATH", None)  # what the bot imports is its own
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *COMMANDS[self.sdk], str(self.port), stdout=log, stderr=log, env=environment
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

    async def speak(self, conversation_id: str, text: str, service_url: str | None = None) -> str:
        """Make the bot say `text` proactively, as if it had saved `service_url`; answers the activity's id.
        AssertionError if the channel refused it."""
        wanted = {"conversationId": conversation_id, "text": text}
        if service_url is not None:
            wanted["serviceUrl"] = service_url
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/proactive", json=wanted) as answer,
        ):
            if answer.status != 200:
                raise AssertionError(f"the bot could not speak ({answer.status}):\n{self.log}")
            return str((await answer.json())["id"])

    async def sent(self, conversation_id: str) -> list[tuple[str, str]]:
        """What the connector answered the bot there in a steady burst: texts and ids, in order."""
        query = {"conversation": conversation_id}
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/sent", params=query) as answer:
            return [(text, activity_id) for text, activity_id in await answer.json()]

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
