"""What operators read: one line per event, nothing secret in it, and no trouble of the log's becomes anybody else's.

Each test runs a few lines in a process of their own, whose standard error is the subject.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from landline import observe

WORDY = structlog.get_logger(__name__)

BEGIN = """
import logging, sys
import structlog
from landline.observe import log_to_stderr

log_to_stderr({level!r})
log = structlog.get_logger("test")

def fail(token):
    raise ValueError("it broke")
"""


def run(code: str, *, level: str = "info", stderr: int | Any = subprocess.PIPE) -> bytes:
    """What `code` writes to standard error. Fails unless it ends well."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN.format(level=level) + code], stderr=stderr, stdin=subprocess.DEVNULL, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return bytes(done.stderr or b"")


def lines(code: str, *, level: str = "info") -> list[dict[str, Any]]:
    """The same, parsed: every line is one JSON object."""
    return [json.loads(line) for line in run(code, level=level).splitlines()]


def at_a_terminal(code: str) -> str:
    """What a person sees."""
    ours, theirs = pty.openpty()
    try:
        run(code, stderr=theirs)
    finally:
        os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:  # on Linux, the end of a terminal that nobody holds any more
        pass
    finally:
        os.close(ours)
    return seen.decode()


FAIL = """
try:
    fail("eyJ-a-token")
except ValueError:
    log.exception("unexpected failure", operation="7")
    logging.getLogger("asyncio").exception("a library failed")
"""


def test_an_event_is_one_line_of_json_with_its_time_and_level() -> None:
    (event,) = lines("log.info('request', status=200, operation='7')")
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "request", "level": "info", "status": 200, "operation": "7"}


def test_a_failure_is_one_line_that_says_where() -> None:
    ours, theirs = lines(FAIL)
    assert (ours["event"], ours["level"], ours["operation"]) == ("unexpected failure", "error", "7")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("a library failed", "error", "asyncio")
    for event in (ours, theirs):
        (exception,) = event["exception"]
        assert (exception["exc_type"], exception["exc_value"]) == ("ValueError", "it broke")
        assert [frame["name"] for frame in exception["frames"]] == ["<module>", "fail"]


def test_a_traceback_shows_no_local_variable_which_may_be_a_secret() -> None:
    assert b"eyJ-a-token" not in run(FAIL)
    assert b"it broke" in run(FAIL)


def test_a_person_is_shown_no_local_variable_either() -> None:
    seen = at_a_terminal("token = 'eyJ-' + 'local'\n" + FAIL.replace('"eyJ-a-token"', "token"))
    assert "it broke" in seen
    assert "eyJ-local" not in seen


def test_a_person_reads_lines_and_not_json() -> None:
    seen = at_a_terminal("log.info('listening', url='http://127.0.0.1:3000')")
    assert "listening" in seen
    assert "http://127.0.0.1:3000" in seen
    assert "{" not in seen


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_less_than_the_level_is_left_out(level: str, shown: list[str]) -> None:
    code = "for name in ('debug', 'info', 'warning', 'error'): getattr(log, name)('it happened')"
    assert [event["level"] for event in lines(code, level=level)] == shown


def test_libraries_are_heard_from_warnings_on_and_never_more_than_ours() -> None:
    code = "for name in ('debug', 'info', 'warning', 'error'): getattr(logging.getLogger('aiohttp'), name)('%s', name)"
    assert [event["event"] for event in lines(code, level="debug")] == ["warning", "error"]
    assert [event["event"] for event in lines(code, level="error")] == ["error"]


def test_a_value_that_is_no_json_is_shown_all_the_same() -> None:
    (event,) = lines("log.info('listening', data='a\\udcff', kind=ValueError, path=object)")
    assert event["data"] == "a\udcff"
    assert event["kind"] == "<class 'ValueError'>"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_full_disk_under_the_log_fails_nothing_else() -> None:
    with open("/dev/full", "wb") as full:
        run("for _ in range(5000): log.warning('request', padding='x' * 100)", stderr=full)


def test_log_that_nobody_reads_any_more_fails_nothing_else() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        run("for _ in range(1000): log.warning('request')", stderr=theirs)
    finally:
        os.close(theirs)


IN_A_LOOP = """
import asyncio, os, signal, threading

async def main():
    for number in range(5):
        log.info("request", number=number)
    {then}

asyncio.run(main())
"""


def writes(then: str) -> list[list[dict[str, Any]]]:
    """The lines of each write of a process that has logged five lines in one moment, and then does this."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # keeps writes apart
    with ours, theirs:
        code = BEGIN.format(level="info") + IN_A_LOOP.format(then=then)
        subprocess.run([sys.executable, "-c", code], stderr=theirs, stdin=subprocess.DEVNULL, timeout=30)
        ours.setblocking(False)
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append([json.loads(line) for line in ours.recv(65536).splitlines() if line.startswith(b"{")])
    return found


def test_lines_of_one_moment_leave_together_and_in_order() -> None:
    first, second = writes("await asyncio.sleep(0.1); log.info('request', number=5)")
    assert [event["number"] for event in first] == [0, 1, 2, 3, 4]
    assert [event["number"] for event in second] == [5]


def test_a_warning_leaves_at_the_end_of_its_turn_behind_what_was_said_before_it() -> None:
    (lines,) = writes("log.warning('slow', number=5); await asyncio.sleep(0); os.kill(os.getpid(), signal.SIGKILL)")
    assert [event["number"] for event in lines] == [0, 1, 2, 3, 4, 5]


def test_a_line_is_written_while_the_loop_waits_for_something_else() -> None:
    (lines,) = writes("threading.Timer(1, os.kill, (os.getpid(), signal.SIGKILL)).start(); await asyncio.sleep(60)")
    assert [event["number"] for event in lines] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("then", ["return", "sys.exit(3)", "raise SystemExit", "asyncio.get_running_loop().stop()"])
def test_process_that_ends_has_written_all_its_lines(then: str) -> None:
    numbers = [event["number"] for lines in writes(then) for event in lines if "number" in event]
    assert numbers == [0, 1, 2, 3, 4]


def test_error_is_written_at_once_behind_what_was_said_before_it() -> None:
    (lines,) = writes("log.error('it broke', number=5); os.kill(os.getpid(), signal.SIGKILL)")
    assert [event["number"] for event in lines] == [0, 1, 2, 3, 4, 5]


def test_thread_does_not_wait_for_a_turn_of_the_loop_and_keeps_the_order() -> None:
    work = "log.info('request', number=5); os.kill(os.getpid(), signal.SIGKILL)"
    (lines,) = writes(f'thread = threading.Thread(target=lambda: exec("{work}")); thread.start(); thread.join()')
    assert [event["number"] for event in lines] == [0, 1, 2, 3, 4, 5]


CAPTURED = """
from structlog.testing import capture_logs

log.info("before")
with capture_logs() as captured:
    log.info("within")
assert [each["event"] for each in captured] == ["within"]
log.info("behind")
"""


def test_another_processor_may_drop_lines() -> None:
    assert [line["event"] for line in lines(CAPTURED)] == ["before", "behind"]


def test_a_command_in_this_process_logs_where_it_says() -> None:
    observe.log_to_stderr("info")
    WORDY.info("remembers where to")


def test_a_later_test_captures_what_is_logged_all_the_same() -> None:
    with capture_logs() as captured:
        WORDY.info("captured")
    assert [each["event"] for each in captured] == ["captured"]
