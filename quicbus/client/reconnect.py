"""When and where to dial next, and when a connection counts as silent. Pure: time and chance are arguments."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from quicbus.client.urls import BrokerUrl

__all__ = ["BACKOFF_BASE_S", "BACKOFF_MAX_S", "DialPlan", "StallWatch", "Verdict"]

BACKOFF_BASE_S = 0.25
"""Upper bound of the first pause; each further round doubles it."""
BACKOFF_MAX_S = 15.0
"""A broker that comes back is found within this; ten thousand clients then spread over it."""
UNANSWERED_S = 2.0
"""After this long without any answer a client dials beside."""


class DialPlan:
    """Full jitter (Brooker, "Exponential backoff and jitter"): a pause is uniform between 0 and the bound.

    Within a round each URL is tried once without a pause. The first round after a loss begins with the URL that worked:
    a lost connection is more often the path's fault than the broker's. Each further round begins one URL later.
    """

    def __init__(self, urls: Sequence[BrokerUrl], rng: random.Random) -> None:
        self._given = list(urls)
        self._urls = list(urls)
        self._current = urls[0]
        self._rng = rng
        self._round = 0
        self._start = 0

    @property
    def urls(self) -> list[BrokerUrl]:
        """In the order in which the next round tries them."""
        return self._urls[self._start :] + self._urls[: self._start]

    def connected(self, url: BrokerUrl, further: Sequence[BrokerUrl]) -> None:
        """`url` works and names further brokers: they are tried after the given ones."""
        self._current = url
        self._round = 0
        self.learned(further)

    def learned(self, further: Sequence[BrokerUrl]) -> None:
        """The further brokers are these now. The one that works names only others."""
        self._urls = list(dict.fromkeys([*self._given, self._current, *further]))
        self._start = self._urls.index(self._current)

    def pause(self) -> float:
        """Return how long to wait before the next round."""
        bound = min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2 ** min(self._round, 16))
        self._round += 1
        return self._rng.uniform(0, bound)

    def failed(self) -> None:
        """A whole round failed: the next one begins with the next URL."""
        self._start = (self._start + 1) % len(self._urls)


class Verdict(Enum):
    """What to do about a connection."""

    FINE = "fine"
    PING = "ping"
    DIAL_BESIDE = "dial beside"
    LOST = "lost"


class StallWatch:
    """Judges how long a broker has been silent.

    It pings after a quarter of the time-out without a datagram, has the client dial beside once a ping is unanswered
    for `UNANSWERED_S`, and gives the connection up after the time-out. A watch that was itself called late (the
    application held up the loop) begins anew: what came in the meantime has not been read yet.
    """

    def __init__(self, stall_timeout_s: float, now: float) -> None:
        self._timeout = stall_timeout_s
        self._baseline = now
        self._pinged: float | None = None
        self._last_look = now
        self.interval_s = min(0.5, stall_timeout_s / 20)
        """How often to look."""

    @property
    def is_answered(self) -> bool:
        """The last ping was."""
        return self._pinged is None

    def look(self, now: float, last_heard: float) -> Verdict:
        if now - self._last_look > 4 * self.interval_s + 0.5:
            self._baseline, self._pinged = now, None
        self._last_look = now
        heard = max(last_heard, self._baseline)
        # A broker in this process answers in the very tick of a coarse clock (uvloop's counts milliseconds).
        if self._pinged is not None and heard >= self._pinged:
            self._pinged = None
        if now - heard >= self._timeout:
            return Verdict.LOST
        if self._pinged is None:
            if now - heard < self._timeout / 4:
                return Verdict.FINE
            self._pinged = now
            return Verdict.PING
        return Verdict.DIAL_BESIDE if now - self._pinged >= min(UNANSWERED_S, self._timeout / 4) else Verdict.FINE
