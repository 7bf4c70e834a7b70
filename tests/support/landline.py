"""The real server in a process of its own: what can be killed, stopped and started again on the same data and port."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import aiohttp

from landline.server.certificates import Files

SECRET = "test-secret-of-the-default-site-0123456789"


_PORTS = itertools.count(os.getpid() * 1009)
"""Each process begins somewhere else."""


def free_port() -> int:
    """A port that nobody listens on at the moment; a server that restarts finds it free again. It lies below those that
    the system hands out by itself, which another process could be given meanwhile."""
    for number in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = 11_000 + number % 21_000
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


UNHURRIED = {"sends_per_s": 100_000, "polls_per_s": 100_000, "starts_per_s": 100_000}
"""Limits that no test meets by being quick. One that is about limits sets its own."""


class Landline:
    """`landline serve` with its data in `data`. Settings are given by their names: `Landline(tmp, keepalive_s=1)`."""

    def __init__(
        self,
        data: Path,
        *,
        bot: str | None = None,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        secret: str | None = SECRET,
        tls: Files | None = None,
        program: tuple[str, ...] = ("-m", "landline"),
        **settings: object,
    ) -> None:
        """`tls` makes it speak TLS, with a certificate for this machine. `program` is what Python runs: another one has
        something wrong with it."""
        self.data = data
        self.port = port or free_port()
        self.secret = secret or ""
        self.settings = UNHURRIED | ({"bot": bot, **settings} if bot else settings)
        self.tls = tls
        self.trust: ssl.SSLContext | bool = True if tls is None else ssl.create_default_context(cafile=tls.ca)
        """What a client of its own has to trust."""
        if tls is not None:
            self.settings |= {"tls_cert": tls.certificate, "tls_key": tls.key}
        self.log_path = data.parent / f"{data.name}.log"
        self._environment = dict(environment or {})
        self._program = program
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def directline(self) -> str:
        """What a client is given as its `domain`."""
        return f"{self.url}/v3/directline"

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything it has printed since the first start."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    async def until_logged(self, text: str, deadline_s: float = 20) -> None:
        """Wait until the log has it: the line of a request is written a moment after its answer."""
        async with asyncio.timeout(deadline_s):
            while text not in self.log:
                await asyncio.sleep(0.02)

    async def start(self, deadline_s: float = 60) -> Landline:
        """Start the process and wait until `/ready` answers 200. One that is not ready in time is ended."""
        arguments = ["serve", "--port", str(self.port), "--data", str(self.data)]
        for name, value in self.settings.items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                arguments.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                arguments += [f"--{flag}", str(value)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LANDLINE_")} | self._environment
        if self.secret:
            environment["LANDLINE_SECRET"] = self.secret
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *self._program, *arguments, stdout=log, stderr=log, env=environment
            )
        try:
            await self._until_ready(deadline_s)
        except BaseException:
            if self._process.returncode is None:
                await self.kill()
            raise
        return self

    async def _until_ready(self, deadline_s: float) -> None:
        assert self._process is not None
        give_up = asyncio.get_running_loop().time() + deadline_s
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.trust)) as session:
            while True:
                if self._process.returncode is not None:
                    raise AssertionError(f"landline exited with {self._process.returncode}:\n{self.log}")
                try:
                    async with session.get(f"{self.url}/ready") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                if asyncio.get_running_loop().time() > give_up:
                    raise AssertionError(f"landline was not ready in {deadline_s} s:\n{self.log}")
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """`kill -9`: what a power button does to a process."""
        await self._end(signal.SIGKILL)

    async def terminate(self, deadline_s: float = 20) -> int:
        """SIGTERM, and the exit code."""
        return await self._end(signal.SIGTERM, deadline_s)

    async def _end(self, how: signal.Signals, deadline_s: float = 20) -> int:
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.send_signal(how)
        code = await asyncio.wait_for(process.wait(), deadline_s)
        self._process = None
        return code

    async def restart(self, *, kill: bool = False) -> None:
        """End it (`kill -9` or SIGTERM) and start it again on the same port and data."""
        await (self.kill() if kill else self.terminate())
        await self.start()

    async def __aenter__(self) -> Landline:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            await self._end(signal.SIGTERM)
