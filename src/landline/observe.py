"""What operators see: the log. One line per event, on standard error; JSON unless a person watches.

Nothing secret is ever logged: no secret, token, ticket, service key, query string or activity text (design section 6).
So a traceback shows where, and never the local variables: they hold all of that.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys

import msgspec
import structlog
from structlog.tracebacks import ExceptionDictTransformer


def log_to_stderr(level: str) -> None:
    """Send every log line of `level` (`debug`, `info`, `warning`, `error`) and above to standard error."""
    person = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_for_people() if person else _for_machines()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _Lines(),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=logging.WARNING, force=True)


def _for_people() -> list[structlog.typing.Processor]:
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


def _for_machines() -> list[structlog.typing.Processor]:
    return [
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        structlog.processors.JSONRenderer(serializer=_json),
    ]


def _json(event: dict[str, object], **_: object) -> bytes:
    try:
        return msgspec.json.encode(event, enc_hook=repr)
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

    def write(self, line: str | bytes) -> None:
        if isinstance(line, str):
            line = line.encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            sys.stderr.buffer.write(line + b"\n")
            sys.stderr.buffer.flush()

    # What structlog calls, by the name of the level.
    debug = info = warning = error = critical = write
