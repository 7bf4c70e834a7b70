"""The bot of the demo: it repeats what it is told, speaks several times when asked to, and knows a few words at which
it does more than that.

It shares the process and nothing else. It is reached over HTTP like any bot, and answers through the connector; what
the demo shows is what a bot elsewhere would show.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from pathlib import Path

import aiohttp
from aiohttp import web

from landline.demo.turn import Activity, Turn

SPEAK = "demo/speak"
"""The event that asks for several messages in a row; its value says how many."""

MOST_AT_ONCE = 20

_GREETING = (
    "Hello. I repeat whatever you say. Then cut the line and let me speak: what I say while you are away "
    "will be waiting for you, once and in order. At the word **help** I do more than repeat."
)
_HELP = """\
Send me a picture, or one of these words:

- **card**: a card with a picture and buttons
- **image**: a picture of mine
- **typing**: I think before I answer
- **stream**: an answer that appears word by word
- **update**: I change what I said last
- **delete**: I take back what I said last

Each works on a line that is cut, too."""
_WORDS = ("card", "image", "typing", "stream", "update", "delete")
_STREAMED = (
    "This answer appears while it is made. What you saw of it half done was typing, which nobody keeps. "
    "The whole is a message like any other: whoever was away finds it once, and finished."
)
_PICTURE = Path(__file__).with_name("line.png")

_ANSWER_S = 20
"""The connector waits out trouble of its own for longer than a request of ours usually takes, but not for this long."""

_THOUGHT_S = 2.0
_WORD_S = 0.12

_CONVERSATIONS, _MESSAGES = 1000, 20
"""How much of what it said the bot remembers, to be changed or taken back."""


class EchoBot:
    """`start`, then `endpoint` is where it takes activities; `stop` when done. One event loop."""

    def __init__(self) -> None:
        application = web.Application()
        application.router.add_post("/api/messages", self._hear)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        self._connector: aiohttp.ClientSession | None = None
        self._said: OrderedDict[str, deque[Activity]] = OrderedDict()

    @property
    def endpoint(self) -> str:
        """The messaging endpoint."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/api/messages"

    async def start(self) -> None:
        """Listen on a free port of the loopback address."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._connector = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_S))

    async def stop(self) -> None:
        """End; turns under way get a second. May be repeated."""
        await self._runner.cleanup()
        if self._connector is not None:
            await self._connector.close()

    async def _hear(self, request: web.Request) -> web.Response:
        """One activity. The answer leaves when the turn is over, as with every SDK (bot 1, fact 3)."""
        assert self._connector is not None
        activity: Activity = await request.json()
        turn = Turn(self._connector, activity)
        match activity["type"]:
            case "message":
                await self._answer(turn)
            case "event" if activity.get("name") == SPEAK:
                await self._speak(turn)
            case "conversationUpdate" if _a_user_joins(activity):
                self._remember(turn, await turn.say(text=_GREETING))
        return web.Response()

    async def _answer(self, turn: Turn) -> None:
        text = turn.activity.get("text", "")
        match str(text).strip().lower():
            case "help":
                await self._help(turn)
            case "card":
                await self._card(turn)
            case "image":
                await self._image(turn)
            case "typing":
                await self._think(turn)
            case "stream":
                await self._stream(turn)
            case "update":
                await self._update(turn)
            case "delete":
                await self._delete(turn)
            case _ if files := _files(turn.activity):
                names = ", ".join(f"{each['name']} ({each['contentType']})" for each in files)
                await self._reply(turn, text=f"I got {names}.", attachments=files)
            case _:
                await self._reply(turn, text=f"I heard: {text}")

    async def _speak(self, turn: Turn) -> None:
        """One after the other: the order in which the connector takes them is the order that clients see."""
        asked = turn.activity.get("value")
        times = min(asked, MOST_AT_ONCE) if isinstance(asked, int) else 1
        for number in range(1, times + 1):
            self._remember(turn, await turn.say(text=f"Message {number} of {times}."))

    async def _help(self, turn: Turn) -> None:
        actions = [{"type": "imBack", "title": word, "value": word} for word in _WORDS]
        suggested = {"to": [turn.activity["from"]["id"]], "actions": actions}
        await self._reply(turn, text=_HELP, suggestedActions=suggested)

    async def _card(self, turn: Turn) -> None:
        picture = await self._upload(turn)
        card = {
            "title": "Three birds on the line",
            "subtitle": "One of them is away",
            "text": "It will not have missed anything.",
            "images": [{"url": picture, "alt": "Birds on a telephone line"}],
            "buttons": [
                {"type": "imBack", "title": "Say hello to them", "value": "Hello, birds"},
                {"type": "openUrl", "title": "Open the picture", "value": picture},
            ],
        }
        await self._reply(turn, attachments=[{"contentType": "application/vnd.microsoft.card.hero", "content": card}])

    async def _image(self, turn: Turn) -> None:
        picture = {"contentType": "image/png", "name": _PICTURE.name, "contentUrl": await self._upload(turn)}
        await self._reply(turn, text="This is where I live.", attachments=[picture])

    async def _upload(self, turn: Turn) -> str:
        return await turn.upload(_PICTURE.name, "image/png", await asyncio.to_thread(_PICTURE.read_bytes))

    async def _think(self, turn: Turn) -> None:
        await turn.reply(type="typing")
        await asyncio.sleep(_THOUGHT_S)
        await self._reply(turn, text="I have thought about it.")

    async def _stream(self, turn: Turn) -> None:
        """Each piece holds all the text so far, and names the first piece as its stream; the last is a message."""
        first = await turn.reply(
            type="typing", text="I am looking for words", channelData={"streamType": "informative", "streamSequence": 1}
        )
        await asyncio.sleep(_THOUGHT_S / 2)
        words = _STREAMED.split()
        for count in range(1, len(words)):
            await asyncio.sleep(_WORD_S)
            piece = {"streamType": "streaming", "streamId": first["id"], "streamSequence": count + 1}
            await turn.reply(type="typing", text=" ".join(words[:count]), channelData=piece)
        await self._reply(turn, text=_STREAMED, channelData={"streamType": "final", "streamId": first["id"]})

    async def _update(self, turn: Turn) -> None:
        said = self._said_in(turn)
        if said:
            last = said.pop()
            said.append(await turn.change(last, text=f"{last.get('text', '')} (changed)".lstrip()))
        else:
            await self._reply(turn, text="There is nothing that I could change.")

    async def _delete(self, turn: Turn) -> None:
        said = self._said_in(turn)
        if said:
            await turn.take_back(said.pop())
        else:
            await self._reply(turn, text="There is nothing that I could take back.")

    async def _reply(self, turn: Turn, **content: object) -> None:
        self._remember(turn, await turn.reply(**content))

    def _remember(self, turn: Turn, said: Activity) -> None:
        self._said_in(turn).append(said)

    def _said_in(self, turn: Turn) -> deque[Activity]:
        """What the bot said in this conversation, as far as it remembers; the last is the newest."""
        said = self._said.setdefault(turn.conversation, deque(maxlen=_MESSAGES))
        self._said.move_to_end(turn.conversation)
        if len(self._said) > _CONVERSATIONS:
            self._said.popitem(last=False)
        return said


def _a_user_joins(activity: Activity) -> bool:
    bot = activity["recipient"]["id"]
    return any(member["id"] != bot for member in activity.get("membersAdded", ()))


def _files(activity: Activity) -> list[Activity]:
    """What was attached by a link, as it can be sent back: the bot shows what it got, and not the small copy of it."""
    wanted = ("contentType", "contentUrl", "name")
    attached = [each for each in activity.get("attachments") or () if isinstance(each, dict)]
    return [
        {name: each[name] for name in wanted}
        for each in attached
        if all(isinstance(each.get(name), str) for name in wanted)
    ]
