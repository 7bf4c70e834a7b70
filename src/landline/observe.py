"""What operators see: the log. One line per event, on standard error; JSON unless a person watches.

The lines of one turn of the event loop leave in one write, in their order: a busy server writes a line per request, and
a write each was a tenth of what a request costs. An error does not wait, and neither does who logs outside of a loop.

Nothing secret is ever logged: no secret, token, ticket, service key, query string or activity text (design section 6).
So a traceback shows where, and never the local variables: they hold all of that.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import sys
import threading
import time
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
import structlog
from structlog.tracebacks import ExceptionDictTransformer


def log_to_stderr(level: str) -> None:
    """Send every log line of `level` (`debug`, `info`, `warning`, `error`) and above to standard error."""
    lines = _Lines()
    atexit.register(lines.flush)
    structlog.configure(
        processors=_for_people() if sys.stderr.isatty() else [_JsonLine()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=logging.WARNING, force=True)


def _for_people() -> list[structlog.typing.Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]


_encode = msgspec.json.Encoder(enc_hook=repr).encode


class _JsonLine:
    """The line of an event, for machines: all of it in one step, since most events are requests and have no failure."""

    def __init__(self) -> None:
        self._show_failure = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))

    def __call__(self, logger: structlog.typing.WrappedLogger, level: str, event: structlog.typing.EventDict) -> bytes:
        event["level"] = level
        event["timestamp"] = _timestamp(time.time_ns() // 1000)
        if "exc_info" in event:
            event = self._show_failure(logger, level, event)
        return _json(event)


def _timestamp(time_us: int) -> str:
    return f"{_second(time_us // 1_000_000)}.{time_us % 1_000_000:06d}Z"


@lru_cache(1)
def _second(seconds: int) -> str:
    """The same for all lines of a second: to work it out was a third of what a line costs."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _json(event: structlog.typing.EventDict) -> bytes:
    try:
        return _encode(event)
    except UnicodeEncodeError:  # half a surrogate pair, such as in a file name that is not UTF-8
        return json.dumps(event, default=repr).encode()


class _FromLibraries(logging.Handler):
    """What libraries have to say, in lines like ours. Only their warnings: at less they would name URLs."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


class _Lines:
    """Writes to standard error, and loses a line rather than raising: a full disk under the log must not fail what is
    being served."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._holder = 0  # the thread whose loop is going to write them
        self._lock = threading.Lock()  # threads of the store have something to say, too

    def hold(self, line: str | bytes) -> None:
        """Have it written with the others of this turn of the loop; where there is no loop, now."""
        thread = threading.get_ident()
        with self._lock:
            if self._holder == thread:
                self._held.append(_bytes(line))
                return
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:
            self.write(line)
            return
        with self._lock:
            self._held.append(_bytes(line))
            self._holder = thread

    def write(self, line: str | bytes) -> None:
        """Write what is held, and this."""
        with self._lock:
            self._held.append(_bytes(line))
            self._flush()

    def flush(self) -> None:
        """Write what is held."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        held, self._held, self._holder = self._held, [], 0
        if held:
            with contextlib.suppress(OSError):
                sys.stderr.buffer.write(b"\n".join([*held, b""]))
                sys.stderr.buffer.flush()

    # What structlog calls, by the name of the level.
    debug = info = warning = hold
    error = critical = write


def _bytes(line: str | bytes) -> bytes:
    return line if isinstance(line, bytes) else line.encode("utf-8", "backslashreplace")
