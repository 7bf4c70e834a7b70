"""Bugs that somebody might really write, planted into the machines. The simulation is worth what it finds of them."""

from __future__ import annotations

from landline.channel.streams import OpenStream, OpenStreams
from landline.core import session as ask
from landline.core.log import Page
from landline.core.session import Session
from landline.core.stream import LISTEN, Decision, KeepAlive, Stream
from landline.core.watermark import Start, Watermark, parse
from simulation.world import Desk, Journal, Kinds


class SkipsOne(Stream):
    def _advance(self, page: Page) -> None:
        super()._advance(page)
        self.position += 1


class SendsTwice(Stream):
    def _advance(self, page: Page) -> None:
        super()._advance(page)
        if page.records:
            self.position = max(0, self.position - 1)


class AdvancesBeforeWritten(Stream):
    def page_read(self, page: Page) -> Decision | None:
        self._advance(page)
        return super().page_read(page)


class SubscribesAfterReading(Stream):
    """Opens, reads the backlog, and only then registers for what comes."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.subscribed = False

    def opened(self) -> Decision | None:
        return super().listening(0)

    def listening(self, transient: int) -> Decision | None:
        self.transient = transient
        return None

    def page_read(self, page: Page) -> Decision | None:
        return self._then_subscribe(super().page_read(page))

    def sent(self) -> Decision | None:
        return self._then_subscribe(super().sent())

    def _then_subscribe(self, decision: Decision | None) -> Decision | None:
        if decision is None and not self.subscribed:
            self.subscribed = True
            return LISTEN
        return decision


class ForgetsWakeWhileBusy(Stream):
    def woken(self) -> Decision | None:
        moved = self._moved
        decision = super().woken()
        if decision is None:
            self._moved = moved
        return decision


class ForgetsFailedRead(Stream):
    def read_failed(self) -> Decision | None:
        decision = super().read_failed()
        self._moved = False
        return decision


class StopsAfterOnePage(Stream):
    def _advance(self, page: Page) -> None:
        moved = self._moved
        super()._advance(page)
        self._moved = moved


class WritesWhilePaused(Stream):
    def paused(self, unsent: int) -> Decision | None:
        return None


class WaitsForeverForTheSlow(Stream):
    def watched(self, unsent: int) -> Decision | None:
        return None


class KeepsTheDead(Stream):
    def _sign_of_life(self) -> Decision | None:
        decision = super()._sign_of_life()
        self._pinged_at = None
        return decision and KeepAlive(False)


class NeverSpeaksFirst(Stream):
    def tick(self, now: float) -> Decision | None:
        self._sent_at = now
        return super().tick(now)


class StampsTransientsWithTheEnd(Stream):
    """Takes the watermark of the page for that of everything in it."""

    def _frames(self, page: Page) -> list[bytes]:
        super()._frames(page)
        return super()._frames(page)


class DropsUpdateAsRepeat(Session):
    def _repeated(self, name: str, content: int, watermark: str | None) -> bool:
        known = name in self._content
        super()._repeated(name, content, watermark)
        return known


class DropsReturnToEarlierWording(Session):
    """Remembers every (id, content) it ever had, and takes a correction back for a repeat."""

    def _repeated(self, name: str, content: int, watermark: str | None) -> bool:
        return super()._repeated(name, content, None)


class NeverDropsARepeat(Session):
    def _repeated(self, name: str, content: int, watermark: str | None) -> bool:
        return False


class ForgetsItsWatermark(Session):
    """Reconnects without the parameter before it had an activity, which asks for what comes from now on."""

    def _reconnect(self) -> ask.Decision:
        super()._reconnect()
        return ask.Reconnect(self.watermark if self._had else None)  # type: ignore[arg-type]


class BeginsAtTheBeginning(Session):
    """Knows no watermark but those of activities: who joined late and was cut early gets what it did not want."""

    def answered(self, stream_url: str, expires_in_s: float, now: float) -> ask.Decision | None:
        before = self.watermark
        decision = super().answered(stream_url, expires_in_s, now)
        self.watermark = before
        return decision


class ClosesWrongStream(OpenStreams):
    def _one_too_many(self, there: list[OpenStream]) -> OpenStream:
        return there[-1]


class TrustsForeignTag(Desk):
    def locate(self, journal: Journal, text: str | None, *, absent_means_head: bool) -> Start:
        start = super().locate(journal, text, absent_means_head=absent_means_head)
        given = parse(text)
        if start.rolled_back and isinstance(given, Watermark) and given.position <= journal.head:
            return Start(given.position, text or "", start.replay)
        return start


PLANTED: dict[str, Kinds] = {
    bug.__name__: Kinds(**{part: bug})  # type: ignore[arg-type]
    for part, bugs in {
        "stream": (
            SkipsOne,
            SendsTwice,
            AdvancesBeforeWritten,
            SubscribesAfterReading,
            ForgetsWakeWhileBusy,
            ForgetsFailedRead,
            StopsAfterOnePage,
            WritesWhilePaused,
            WaitsForeverForTheSlow,
            KeepsTheDead,
            NeverSpeaksFirst,
            StampsTransientsWithTheEnd,
        ),
        "session": (
            DropsUpdateAsRepeat,
            DropsReturnToEarlierWording,
            NeverDropsARepeat,
            ForgetsItsWatermark,
            BeginsAtTheBeginning,
        ),
        "streams": (ClosesWrongStream,),
        "desk": (TrustsForeignTag,),
    }.items()
    for bug in bugs
}
