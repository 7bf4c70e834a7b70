"""What `landline demo` and `landline try` are set to."""

from __future__ import annotations

import re
from collections.abc import Mapping

from landline.config import Settings, settings_from
from landline.core.bot import without_query
from landline.demo.endpoint import Typed, endpoint_of
from landline.errors import ConfigurationError

DATA = "landline-data/demo"
"""Data is kept, so that a page goes on where it was when the demo is started again; apart from what `serve` keeps."""

DATA_OF_A_BOT = "landline-data/try"
"""Each bot has a directory of its own there: a bot that is tried for the first time is to greet."""

LOG_LEVEL = "warning"


def demo_settings(
    flags: Mapping[str, object], environment: Mapping[str, str], url: str | None = None
) -> tuple[Settings, Typed | None]:
    """The settings of a demo, and the bot's endpoint as it was understood, where one was typed: as `url`, or as
    `--bot`. Raises `ConfigurationError`."""
    bot = flags.get("bot")
    if url is not None and bot is not None:
        raise ConfigurationError("bot: the bot's URL is there twice: leave --bot out")
    asked = url if url is not None else bot
    typed = None if asked is None else endpoint_of(str(asked))
    defaults = {"LANDLINE_DATA": DATA, "LANDLINE_LOG_LEVEL": LOG_LEVEL}
    endpoint = typed.endpoint if typed is not None else environment.get("LANDLINE_BOT")
    if endpoint is not None:
        defaults["LANDLINE_DATA"] = f"{DATA_OF_A_BOT}/{_name_of(endpoint)}"
    return settings_from({**flags, "bot": typed and typed.endpoint}, {**defaults, **environment}), typed


def _name_of(endpoint: str) -> str:
    _, _, where = without_query(endpoint).partition("://")
    return re.sub(r"[^A-Za-z0-9.-]+", "-", where).strip("-.")[:100]
