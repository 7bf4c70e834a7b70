"""The check bot on the Bot Framework SDK for Python. What it does stands in `checks.py`.

    python bb_py.py PORT

Its adapter fails (500) for every invoke that has an answer, and for every `expectReplies` turn: it takes a dictionary
for text. `STOCK_PROCESS=1` leaves it so; otherwise the bot writes those answers itself.

`CHECK_BOT_CONFIG` has the attributes of its configuration, as Python. Without it the bot has no app id.
"""

import os
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from botbuilder import core, schema
from botbuilder.core import ActivityHandler, TurnContext
from botbuilder.integration.aiohttp import CloudAdapter, ConfigurationBotFrameworkAuthentication
from botbuilder.schema import Activity, ConversationReference
from checks import PICTURE, CheckBot, serve


def configuration() -> SimpleNamespace:
    attributes: dict[str, Any] = {}
    exec(os.environ.get("CHECK_BOT_CONFIG", ""), {}, attributes)
    return SimpleNamespace(**attributes)


class Bot(CheckBot, ActivityHandler):
    """What the SDK says in its own words."""

    core, schema, InvokeResponse, oneself = core, schema, core.InvokeResponse, "bot"

    def __init__(self) -> None:
        super().__init__()
        config = configuration()
        self.app_id = getattr(config, "APP_ID", "")  # anonymous bots have none; the SDK wants a text nevertheless
        self.adapter = CloudAdapter(ConfigurationBotFrameworkAuthentication(config))

    async def turn(self, request: web.Request) -> web.StreamResponse:
        if os.environ.get("STOCK_PROCESS"):
            return await self.adapter.process(request, self)
        activity = Activity().deserialize(await request.json())
        header = request.headers.get("Authorization", "")
        answer = await self.adapter.process_activity(header, activity, self.on_turn)
        if answer is None:
            return web.Response(status=201)
        status = int(answer.status)
        return web.json_response(answer.body, status=status) if answer.body else web.Response(status=status)

    async def speak(self, reference: Any, text: str) -> str:
        ids: list[str] = []

        async def say(context: TurnContext) -> None:
            ids.append((await context.send_activity(text)).id)

        await self.adapter.continue_conversation(ConversationReference().deserialize(reference), say, self.app_id)
        return ids[0]

    async def on_turn(self, turn_context: TurnContext) -> None:
        reference = TurnContext.get_conversation_reference(turn_context.activity)
        self.references.save(reference.conversation.id, reference.serialize())
        await super().on_turn(turn_context)

    async def do_signin(self, context: TurnContext) -> None:
        card = schema.OAuthCard(
            text="Sign in",
            connection_name="github",
            buttons=[schema.CardAction(type="signin", title="Sign in", value="https://issuer.example/authorize")],
        )
        await context.send_activity(core.MessageFactory.attachment(core.CardFactory.oauth_card(card), text="sign in"))
        tokens = context.turn_state[self.adapter.USER_TOKEN_CLIENT_KEY]
        activity = context.activity
        token = await tokens.get_user_token(activity.from_property.id, "github", activity.channel_id, None)
        await context.send_activity("token: " + ("none" if token is None else token.token))

    def connector(self, context: TurnContext) -> Any:
        return context.turn_state[self.adapter.BOT_CONNECTOR_CLIENT_KEY]

    def picture(self) -> bytes:
        return PICTURE


if __name__ == "__main__":
    serve(Bot())
