"""A real PostgreSQL: a cluster of its own for each test session (and worker), which ends with it, and a database for
each test. The disk is really synced. Run as root, the server is an unprivileged user's, as it insists.

The programs are those of Debian's package or whatever `pg_ctl` is on the path; where there are none the tests skip.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_START_S = 60.0


def _programs() -> Path | None:
    """Where `initdb` and `postgres` are: the newest of Debian's, or what is on the path."""
    for directory in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name)):
        if (directory / "initdb").exists():
            return directory
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


PROGRAMS = _programs()
"""None where PostgreSQL is not installed."""

MISSING = "PostgreSQL is not installed: apt-get install postgresql, or make .tools/postgresql"

# What syncs the disk is left as it is by default: on.
_SETTINGS = {
    "max_connections": "60",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "log_min_messages": "fatal",
    "log_checkpoints": "off",
}


def _user() -> dict[str, Any]:
    """Who runs the server: `subprocess` arguments."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("no unprivileged user to run PostgreSQL as")


class Cluster:
    """One server with its data, on a free port of loopback."""

    def __init__(self, settings: Mapping[str, str] | None = None, *, copy_of: Cluster | None = None) -> None:
        """Makes the cluster and starts it: a new one, or a standby that follows another."""
        assert PROGRAMS is not None, MISSING
        _remove_orphans()
        self.home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))
        (self.home / "owner").write_text(str(os.getpid()))
        self._settings = {**_SETTINGS, **(settings or {})}
        self._as = _user()
        self._names = itertools.count()
        self._free: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        if self._as:
            os.chown(self.home, self._as["user"], self._as["group"])
        data = str(self.home / "data")
        if copy_of is None:
            self._run("initdb", "-D", data, "-U", "owner", "-A", "trust", "-E", "UTF8", "--locale=C")
        else:
            self._run("pg_basebackup", "-R", "-c", "fast", "-D", data, "-d", copy_of.url("postgres"))
        self.port = 0
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        assert PROGRAMS is not None
        done = subprocess.run(
            [str(PROGRAMS / program), *arguments], capture_output=True, cwd=self.home, check=False, **self._as
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start the server, on the port it had before if it ran before, and wait until it takes connections."""
        for _ in range(10):
            port = self.port or _free_port()
            if self._started(port):
                self.port = port
                return
        raise AssertionError((self.home / "log").read_text()[-2000:])

    def _started(self, port: int) -> bool:
        assert PROGRAMS is not None
        settings = {**self._settings, "port": str(port), "listen_addresses": "127.0.0.1"}
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(PROGRAMS / "postgres"), "-D", "data", "-k", "", *flags],
                cwd=self.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as,
            )
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self._process.poll() is None:
            ready = subprocess.run(
                [str(PROGRAMS / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "2"], check=False
            )
            if ready.returncode == 0:
                return True
            time.sleep(0.05)
        return False

    def kill(self) -> None:
        """`kill -9` of the server and of everything it started."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An immediate end, as orderly as an immediate one is."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            if how is signal.SIGKILL:
                os.killpg(process.pid, how)
            else:
                process.send_signal(how)
            process.wait(30)

    def promote(self) -> None:
        """A standby becomes a primary."""
        self.sql("SELECT pg_promote()")

    def wait_for_standby(self) -> None:
        """Commits wait for the standby from now on. Returns once it follows."""
        until = time.monotonic() + _START_S
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.sql("SELECT pg_reload_conf()")
        while self.sql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "0":
            assert time.monotonic() < until, "the standby does not follow"
            time.sleep(0.05)

    def remove(self) -> None:
        """Stop it and leave nothing."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def url(self, database: str, user: str = "owner", port: int | None = None) -> str:
        """How to reach a database."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def sql(self, text: str, database: str = "postgres", user: str = "owner") -> str:
        """What `psql` answers, a row a line. Raises `AssertionError` with what it complains of."""
        assert PROGRAMS is not None
        done = subprocess.run(
            [str(PROGRAMS / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.url(database, user)],
            input=text.encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def database(self) -> str:
        """A new, empty database; its name."""
        name = f"t{next(self._names)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE template0")
        return name

    def take(self) -> str:
        """A database with nothing in it, which may have had something in it before: that is quicker."""
        if not self._free:
            return self.database()
        name = self._free.pop()
        self.sql(_EMPTY, name)
        return name

    def give_back(self, database: str) -> None:
        """Nobody uses it any more."""
        if database not in self._free:
            self._free.append(database)


_EMPTY = """
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'landline' AND tablename <> 'layout' LOOP
        EXECUTE format('DELETE FROM landline.%I', name);
    END LOOP;
END
$$
"""


_PREFIX = "ll-pg-"


def _remove_orphans() -> None:
    """End the servers of test processes that were killed, and so could not do it themselves."""
    for home in Path("/tmp").glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            if Path(f"/proc/{int((home / 'owner').read_text())}").exists():
                continue
            with contextlib.suppress(OSError, ValueError):
                server = int((home / "data" / "postmaster.pid").read_text().split()[0])
                if str(home) == os.readlink(f"/proc/{server}/cwd").removesuffix("/data"):
                    os.kill(server, signal.SIGQUIT)
            shutil.rmtree(home, ignore_errors=True)


def _free_port() -> int:
    """A port that was free a moment ago; `Cluster.start` tries again where somebody else took it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@functools.cache
def cluster() -> Cluster:
    """The cluster of this process: tests share it, each with databases of its own, and do it no harm."""
    made = Cluster()
    atexit.register(made.remove)
    return made


POOLER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
"""None where it is not installed."""

_POOLER = """
[databases]
* = host=127.0.0.1 port={port} user=owner
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
"""


@contextlib.contextmanager
def pooler(to: Cluster) -> Iterator[int]:
    """The port of a pgbouncer in transaction mode before a cluster."""
    assert POOLER is not None
    own = _free_port()
    settings = to.home / f"pooler-{own}.ini"
    settings.write_text(_POOLER.format(port=to.port, own=own))
    process = subprocess.Popen([POOLER, "-q", str(settings)], cwd=to.home, **_user())
    try:
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", own), 1):
                break
            time.sleep(0.02)
        yield own
    finally:
        process.kill()
        process.wait(10)
