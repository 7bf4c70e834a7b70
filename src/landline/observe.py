"""What operators see: the log. One line per event, on standard error; JSON unless a person watches.

Nothing secret is ever logged: no secret, token, ticket, service key, query string or activity text (design section 6).
"""

from __future__ import annotations

import logging
import sys

import msgspec
import structlog


def log_to_stderr(level: str) -> None:
    """Send every log line of `level` (`debug`, `info`, `warning`, `error`) and above to standard error."""
    person = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if person else [structlog.processors.dict_tracebacks]),
            structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer(serializer=_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
        if person
        else structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )


def _json(event: dict[str, object], **_: object) -> bytes:
    return msgspec.json.encode(event, enc_hook=repr)
