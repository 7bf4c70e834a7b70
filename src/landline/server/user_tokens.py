"""Where SDKs look for a token service, which does not exist yet (bot 7): nobody is signed in here.

The paths lie at the root of the base that bots are told, as SDKs build them.
"""

from __future__ import annotations

from starlette.routing import Route

from landline.errors import NotFound
from landline.server.exchange import Exchange, HttpRules, Resource

_USER_TOKEN, _SIGN_IN = "/api/usertoken", "/api/botsignin"
_OPERATIONS = (
    *(
        f"{_USER_TOKEN}/{name}"
        for name in (
            "SignOut",
            "GetTokenStatus",
            "GetAadTokens",
            "GetTokenOrSignInResource",
            "exchange",
            "emulateOAuthCards",
            "sendTokenResponse",
        )
    ),
    *(f"{_SIGN_IN}/{name}" for name in ("GetSignInUrl", "GetSignInResource")),
)
"""What SDKs ask for besides the token of a user: each has a route of its own, by which the log names it. The query is
never logged, for there are users, codes and states in it."""


class UserTokens:
    """The endpoints of a token service that has nobody's token."""

    def __init__(self, rules: HttpRules) -> None:
        self._rules = rules

    def routes(self) -> list[Route]:
        """What is to be found where."""
        nothing = dict.fromkeys(("DELETE", "PATCH", "POST", "PUT"), self.nothing)
        get_token = Resource(f"{_USER_TOKEN}/GetToken", self._rules, GET=self.no_token, **nothing)
        others = (*_OPERATIONS, _USER_TOKEN + "/{operation:path}", _SIGN_IN + "/{operation:path}")
        resources = [get_token, *(Resource(path, self._rules, GET=self.nothing, **nothing) for path in others)]
        return [Route(resource.template, resource) for resource in resources]

    async def no_token(self, exchange: Exchange) -> None:
        """Not signed in. With a body, whatever stands in it, BB-js takes it for the user's token."""
        await exchange.answer(404, b"")

    async def nothing(self, exchange: Exchange) -> None:
        """Raises `NotFound`."""
        raise NotFound("There is no token service yet: bots cannot sign users in by their SDK's prompts")
