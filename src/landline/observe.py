"""What operators see: the log. One line per event, on standard error; JSON unless a person watches.

The lines of one moment leave in one write, in their order: a busy server writes a line per request and per stream, and
a write each was a tenth of what those cost. A turn of the event loop is too short for that, since it accepts one
connection only; but a warning does not wait longer than that. An error does not wait at all, and neither does who logs
outside of a loop.

Nothing secret is ever logged: no secret, token, ticket, service key, query string or activity text.
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
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache

import msgspec


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Nobody finds this module meanwhile, unless it was imported before.

    structlog imports rich, where it is installed, for tracebacks that are never printed here; that took as long as
    structlog itself and all that it needs. So this module is the first to import structlog."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # what import takes for "there is none"
    try:
        yield
    finally:
        del sys.modules[module]


with _hidden("rich"):
    import structlog
    from structlog.tracebacks import ExceptionDictTransformer

MOMENT_S = 0.01
"""How long a line waits for others: less than anybody who watches can see."""


def log_to_stderr(level: str) -> None:
    """Send every log line of `level` (`debug`, `info`, `warning`, `error`) and above to standard error."""
    lines = _Lines()
    atexit.register(lines.flush)
    person = sys.stderr.isatty()
    from_level = _changeable(_from_level(level))
    structlog.configure(
        processors=_for_people() if person else [_JsonLine()],
        wrapper_class=from_level if person else _in_one_step(from_level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[FromLibraries()], level=logging.WARNING, force=True)


def change_level(level: str) -> None:
    """Send lines of this level and above from now on, where `log_to_stderr` was called before. Loggers that are in use
    are of one class, which changes."""
    kind = structlog.get_config()["wrapper_class"]
    if getattr(kind, "is_changeable", False):
        for name, method in vars(_from_level(level)).items():
            if not name.startswith("__"):
                setattr(kind, name, method)


def _from_level(level: str) -> type[structlog.typing.FilteringBoundLogger]:
    return structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()])


def _changeable(wrapper: type[structlog.typing.FilteringBoundLogger]) -> type[structlog.typing.FilteringBoundLogger]:
    """Not structlog's own class of that level, which others have too."""

    class Changeable(wrapper):  # type: ignore[misc, valid-type]
        is_changeable = True

    return Changeable


def _in_one_step(wrapper: type[structlog.typing.FilteringBoundLogger]) -> type[structlog.typing.FilteringBoundLogger]:
    """Loggers for one processor, which makes the whole line: what structlog does around a chain of them costs as much
    as the line does. Nothing is ever bound to a logger here."""

    class OneStep(wrapper):  # type: ignore[misc, valid-type]
        def _proxy_to_logger(self, method_name: str, event: str | None = None, **details: object) -> None:
            details["event"] = event
            with contextlib.suppress(structlog.DropEvent):  # by a processor that has taken the place of ours
                getattr(self._logger, method_name)(self._processors[0](self._logger, method_name, details))

    return OneStep


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


class FromLibraries(logging.Handler):
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
        self._soon = False  # at the end of its turn
        self._lock = threading.Lock()  # threads of the store have something to say, too

    def hold(self, line: str | bytes, soon: bool = False) -> None:
        """Have it written with the others of this moment, or of this turn of the loop; where there is no loop, now."""
        thread = threading.get_ident()
        with self._lock:
            if self._holder == thread and (self._soon or not soon):
                self._held.append(_bytes(line))
                return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.write(line)
            return
        if soon:
            loop.call_soon(self.flush)
        else:
            loop.call_later(MOMENT_S, self.flush)
        with self._lock:
            self._held.append(_bytes(line))
            self._holder, self._soon = thread, soon

    def hurry(self, line: str | bytes) -> None:
        """Have it written with what is held, at the end of this turn of the loop."""
        self.hold(line, soon=True)

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
        held, self._held, self._holder, self._soon = self._held, [], 0, False
        if held:
            with contextlib.suppress(OSError):
                sys.stderr.buffer.write(b"\n".join([*held, b""]))
                sys.stderr.buffer.flush()

    # What structlog calls, by the name of the level.
    debug = info = hold
    warning = hurry
    error = critical = write


def _bytes(line: str | bytes) -> bytes:
    return line if isinstance(line, bytes) else line.encode("utf-8", "backslashreplace")
