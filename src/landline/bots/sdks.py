"""What a bot is told so that it trusts this server and is trusted by it: the settings of each SDK (bot 6.3).

Pure text. How the settings get into a bot, and the few lines of code that some SDKs need besides, stand in
docs/howto/authenticated-bots.md.
"""

from __future__ import annotations

import enum

import msgspec

from landline.core.bot import CONNECTOR

_SERVICE = "CONNECTIONS__SERVICE_CONNECTION__SETTINGS__"
_CONNECTION = "connections__landline__settings__"
"""What the Agents SDKs call the connection that a bot uses: in Python by a fixed name, in JavaScript by any."""


class Sdk(enum.Enum):
    """An SDK that bots are built on."""

    BOTBUILDER_PYTHON = "botbuilder-python"
    BOTBUILDER_JS = "botbuilder-js"
    AGENTS_PYTHON = "agents-python"
    AGENTS_JS = "agents-js"


class Identity(msgspec.Struct, frozen=True):
    """A bot with an app id, and the authority that it belongs to. `base` is the base of its service URL, `issuer` our
    name in tokens."""

    app_id: str
    secret: str
    base: str
    issuer: str

    @property
    def metadata(self) -> str:
        """Where the bot learns our keys."""
        return f"{self.base}/v1/.well-known/openidconfiguration"

    @property
    def authority(self) -> str:
        """Where the bot gets its tokens. SDKs trust an authority of this path without asking Microsoft about it, if it
        is https."""
        return f"{self.base}/adfs"


def warning_of(sdk: Sdk, identity: Identity) -> str | None:
    """Why the settings cannot work as they are, for whoever reads them; None where they can (bot 6.3)."""
    if identity.base.startswith("https://"):
        return None
    return (
        f"{identity.base} is not https, and the library by which {sdk.value} fetches its tokens takes nothing else: "
        "name an https service_url, or start the server with a certificate (landline dev-cert makes one)"
    )


def settings_of(sdk: Sdk, identity: Identity) -> dict[str, str]:
    """The settings by the names that the SDK has for them. Each names us as the token service, too: by default the
    SDKs send what we gave the bot, and the key of its service URL, to Microsoft's (bot 7)."""
    match sdk:
        case Sdk.BOTBUILDER_PYTHON:
            return {
                "APP_TYPE": "MultiTenant",
                "APP_ID": identity.app_id,
                "APP_PASSWORD": identity.secret,
                "TO_CHANNEL_FROM_BOT_LOGIN_URL": identity.authority,
                "TO_CHANNEL_FROM_BOT_OAUTH_SCOPE": CONNECTOR,
                "TO_BOT_FROM_CHANNEL_TOKEN_ISSUER": identity.issuer,
                "TO_BOT_FROM_CHANNEL_OPENID_METADATA_URL": identity.metadata,
                "TO_BOT_FROM_EMULATOR_OPENID_METADATA_URL": identity.metadata,
                "OAUTH_URL": identity.base,
                "VALIDATE_AUTHORITY": "False",
                "CALLER_ID": "urn:landline",
            }
        case Sdk.BOTBUILDER_JS:
            return {
                "MicrosoftAppType": "MultiTenant",
                "MicrosoftAppId": identity.app_id,
                "MicrosoftAppPassword": identity.secret,
                "ChannelService": identity.base,
                "ToChannelFromBotLoginUrl": identity.authority,
                "ToChannelFromBotOAuthScope": CONNECTOR,
                "ToBotFromChannelTokenIssuer": identity.issuer,
                "ToBotFromChannelOpenIdMetadataUrl": identity.metadata,
                "ToBotFromEmulatorOpenIdMetadataUrl": identity.metadata,
                "OAuthUrl": identity.base,
                "ValidateAuthority": "false",
                "CallerId": "urn:landline",
            }
        case Sdk.AGENTS_PYTHON:
            return {
                f"{_SERVICE}CLIENTID": identity.app_id,
                f"{_SERVICE}CLIENTSECRET": identity.secret,
                f"{_SERVICE}TENANTID": "adfs",
                f"{_SERVICE}AUTHORITY": identity.authority,
                f"{_SERVICE}ISSUERS": identity.issuer,
                "TOKEN_SERVICE_ENDPOINT": identity.base,  # for the bot's own code: the SDK for Python reads it nowhere
            }
        case Sdk.AGENTS_JS:
            return {
                f"{_CONNECTION}clientId": identity.app_id,
                f"{_CONNECTION}clientSecret": identity.secret,
                f"{_CONNECTION}authorityEndpoint": identity.authority,
                f"{_CONNECTION}issuers": identity.issuer,
                f"{_CONNECTION}validateIssuer": "true",
                "connectionsMap__0__connection": "landline",
                "connectionsMap__0__serviceUrl": "*",
                "TOKEN_SERVICE_ENDPOINT": identity.base,
            }


def rendered(sdk: Sdk, identity: Identity) -> str:
    """The settings as they are written down: attributes of a configuration class for the Bot Framework SDK for Python,
    lines of an environment file for the others."""
    settings = settings_of(sdk, identity)
    if sdk is Sdk.BOTBUILDER_PYTHON:
        return "".join(f"{name} = {_python(value)}\n" for name, value in settings.items())
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _python(value: str) -> str:
    return value if value in ("True", "False") else msgspec.json.encode(value).decode()
