"""An nginx in front of servers: `proxy_pass`, what it needs to run in a test, and what a test adds. By itself it speaks
HTTP/1.0 to the server, one connection for each request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
"""None where it is not installed."""

_CONFIGURATION = """
daemon off;
master_process off;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{}}
http {{
    {log}
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    client_max_body_size 0;
    {more}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass {upstream}; {passing} }}
    }}
}}
"""


@contextlib.asynccontextmanager
async def nginx(
    home: Path, upstream: str, *, log: str = "access_log off;", more: str = "", passing: str = ""
) -> AsyncIterator[str]:
    """The URL of an nginx that passes everything on to `upstream`, a URL without a path. `log` and `more` are
    directives beside the server, `passing` those beside `proxy_pass`."""
    assert PROGRAM is not None
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = home / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(home=home, port=port, upstream=upstream, log=log, more=more, passing=passing)
    )
    process = await asyncio.create_subprocess_exec(PROGRAM, "-p", str(home), "-e", "error.log", "-c", configuration)
    try:
        async with asyncio.timeout(20):
            await _until_it_listens(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _until_it_listens(process: asyncio.subprocess.Process, port: int) -> None:
    while True:
        assert process.returncode is None, "nginx did not start"
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.05)
