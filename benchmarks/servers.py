"""Server processes: started, pinned to their core, and asked what they have used."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import Unexpected
from benchmarks.work import SECRET

GENERATOR_CORE, SERVER_CORE = 0, max(os.sched_getaffinity(0))
PEERS = ("aiohttp", "fastapi")
START_S = 30.0


class Server:
    """A process that listens on `port`, alone on the server's core."""

    def __init__(
        self, name: str, port: int, command: Sequence[str], directory: Path, source: Path | None = None
    ) -> None:
        """`source` is a checkout of ours other than the installed one."""
        self.name = name
        self.port = port
        self.directory = directory
        self._command = command
        self._source = source
        self._log = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it, wait until it answers, and say how long that took, in seconds."""
        self.directory.mkdir(exist_ok=True)
        environment = environment_of(self._source)
        began = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._command], stdout=log, stderr=log, env={**environment, "LANDLINE_SECRET": SECRET}
            )
        os.sched_setaffinity(self.pid, {SERVER_CORE})
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() - began > START_S:
                raise Unexpected(f"{self.name} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.01)
        return time.monotonic() - began

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), START_S) as probe:
                if self.name != "landline":
                    return True
                probe.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return probe.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def stop(self) -> None:
        """End it; without a farewell where that takes too long."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU that the process has used, user and system, all threads: the kernel's own clock of it, in nanoseconds
        where /proc counts in hundredths of a second."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def resident_bytes(self) -> int:
        """See below."""
        return resident_bytes(self.pid)


def resident_bytes(pid: int) -> int:
    """What of a process's memory is there, counted page by page (the number in `status` lags behind)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Rss:\s+(\d+) kB$", rollup, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def environment_of(source: Path | None) -> dict[str, str]:
    """What a server is started with: none of the settings that happen to stand here, and the code of `source`."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LANDLINE_")}
    return environment if source is None else {**environment, "PYTHONPATH": str(source / "src")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


RATES = ("--sends-per-s", "--polls-per-s", "--starts-per-s")
"""Limits for what one conversation or site may ask; here a few of them ask for what would come from thousands."""


def landline(directory: Path, *flags: str, source: Path | None = None) -> Server:
    """Ours, with its real store, and every setting at its default but the rates, and those of `flags`."""
    port = free_port()
    rates = [word for flag in _rates(source) for word in (flag, "1000000")]
    command = ["-m", "landline", "serve", "--port", str(port), "--data", str(directory / "data"), *rates, *flags]
    return Server("landline", port, command, directory, source)


def _rates(source: Path | None) -> Sequence[str]:
    """Those limits that this version has."""
    if source is None:
        return RATES
    command = [sys.executable, "-m", "landline", "serve", "--help"]
    known = subprocess.run(command, env=environment_of(source), check=True, capture_output=True, text=True).stdout
    return [flag for flag in RATES if flag in known]


def floor(directory: Path) -> Server:
    port = free_port()
    return Server("floor", port, ["-m", "benchmarks.floor", str(port)], directory)


def peer(name: str, directory: Path) -> Server:
    """`aiohttp`, `fastapi` or `bare`."""
    port = free_port()
    return Server(name, port, ["-m", "benchmarks.peers", name, str(port)], directory)


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """All of them, until the end."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.stop()


@contextmanager
def pinned_to(core: int) -> Iterator[None]:
    """This process on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
