"""What bots are told, and that the how-to pages say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from landline.bots.sdks import Identity, Sdk, rendered, settings_of, warning_of

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


TOKEN_SERVICE = {
    Sdk.BOTBUILDER_PYTHON: "OAUTH_URL",
    Sdk.BOTBUILDER_JS: "OAuthUrl",
    Sdk.AGENTS_PYTHON: "TOKEN_SERVICE_ENDPOINT",
    Sdk.AGENTS_JS: "TOKEN_SERVICE_ENDPOINT",
}


@each_sdk
def test_every_sdk_is_told_that_we_are_the_token_service(sdk: Sdk) -> None:
    assert settings_of(sdk, IDENTITY)[TOKEN_SERVICE[sdk]] == BASE


@each_sdk
def test_settings_that_cannot_work_are_warned_of(sdk: Sdk) -> None:
    assert warning_of(sdk, IDENTITY) is None
    warning = warning_of(sdk, Identity("a", "b", "http://127.0.0.1:3000", "http://127.0.0.1:3000"))
    assert warning is not None
    assert "http://127.0.0.1:3000 is not https" in warning


def test_what_is_printed_for_python_is_python_whatever_the_secret() -> None:
    said: dict[str, object] = {}
    exec(rendered(Sdk.BOTBUILDER_PYTHON, Identity("a", 'quote " and \\', BASE, BASE)), {}, said)
    assert said["APP_PASSWORD"] == 'quote " and \\'
    assert said["VALIDATE_AUTHORITY"] is False
