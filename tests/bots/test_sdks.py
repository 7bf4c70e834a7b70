"""What bots are told, and that the how-to pages say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from landline.bots.sdks import Identity, Sdk, rendered, settings_of

PAGES = {
    Sdk.BOTBUILDER_PYTHON: "bot-framework-python.md",
    Sdk.BOTBUILDER_JS: "bot-framework-javascript.md",
    Sdk.AGENTS_PYTHON: "agents-python.md",
    Sdk.AGENTS_JS: "agents-javascript.md",
}
BASE = "https://landline.example"
IDENTITY = Identity("11111111-2222-4333-8444-555555555555", "THE-APP-SECRET", BASE, BASE)

each_sdk = pytest.mark.parametrize("sdk", list(Sdk))


@each_sdk
def test_the_page_shows_the_settings_as_they_are_printed(sdk: Sdk) -> None:
    language = "python" if sdk is Sdk.BOTBUILDER_PYTHON else "ini"
    page = Path(__file__).parents[2] / "docs" / "howto" / PAGES[sdk]
    assert f"```{language}\n{rendered(sdk, IDENTITY)}```\n" in page.read_text("utf-8")


@each_sdk
def test_every_address_that_a_bot_is_told_is_ours(sdk: Sdk) -> None:
    """But for the scope, which is a name."""
    addresses = [value for value in settings_of(sdk, IDENTITY).values() if value.startswith("http")]
    assert {value for value in addresses if not value.startswith(BASE)} <= {"https://api.botframework.com"}


def test_what_is_printed_for_python_is_python_whatever_the_secret() -> None:
    said: dict[str, object] = {}
    exec(rendered(Sdk.BOTBUILDER_PYTHON, Identity("a", 'quote " and \\', BASE, BASE)), {}, said)
    assert said["APP_PASSWORD"] == 'quote " and \\'
    assert said["VALIDATE_AUTHORITY"] is False
