from __future__ import annotations

import msgspec
import pytest

from landline.config import Settings
from landline.demo.server import Demo
from landline.errors import ConfigurationError
from support.landline import free_port


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "demo.example"])
def test_the_demo_listens_for_nobody_but_this_machine(settings: Settings, host: str) -> None:
    with pytest.raises(ConfigurationError, match="host: "):
        Demo(msgspec.structs.replace(settings, host=host))


async def test_a_start_that_fails_leaves_nothing_open(settings: Settings) -> None:
    """`filterwarnings = error` makes a bot or a session that was left open fail this test."""
    settings = msgspec.structs.replace(settings, port=free_port())
    first, second = Demo(settings), Demo(settings)
    await first.start()
    try:
        with pytest.raises(ConfigurationError, match="port: "):
            await second.start()
        await second.stop()
    finally:
        await first.stop()
    await second.start()
    await second.stop()
