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
SUSPICIOUS_S = 1.0
"""So long a silence where there was traffic is worth a PING that presses; and so long a frame waits for its answer."""
BUSY_LOOKS = 4
"""There was traffic: something came between one look and the next so often in a row."""


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
    PRESS = "press"
    """Ping, and send so much with it that a broker that finds this client at another address may go on there."""
    DIAL_BESIDE = "dial beside"
    LOST = "lost"


class StallWatch:
    """Judges how long a broker has been silent.

    It pings after a quarter of the time-out without a datagram, has the client dial beside once a ping is unanswered
    for `UNANSWERED_S`, and gives the connection up after the time-out. A watch that was itself called late (the
    application held up the loop) begins anew: what came in the meantime has not been read yet.

    A client that only listens is found at a new address when it sends next, so it presses at once where its own address
    changed, after `SUSPICIOUS_S` of silence where there was traffic, and again while acknowledgements come but not the
    answer: then the broker sees it and is not allowed to send it what got lost.
    """

    def __init__(self, stall_timeout_s: float, now: float) -> None:
        self._timeout = stall_timeout_s
        self._suspicious = min(SUSPICIOUS_S, stall_timeout_s / 4)
        self._baseline = now
        self._pinged: float | None = None
        self._asked: float | None = None
        """When the last ping was sent whose answer, a frame, has not come."""
        self._last_look = now
        self._last_heard = now
        self._lively_looks = 0
        self.interval_s = min(0.5, stall_timeout_s / 20)
        """How often to look."""

    @property
    def is_answered(self) -> bool:
        """The last ping was."""
        return self._pinged is None

    def answered(self) -> None:
        """The broker's frame came that answers a ping."""
        self._asked = None

    def look(self, now: float, last_heard: float, *, has_moved: bool = False) -> Verdict:
        """Say what to do now. `has_moved`: this host's address towards the broker changed since the last look."""
        if now - self._last_look > 4 * self.interval_s + 0.5:
            self._baseline, self._pinged, self._asked = now, None, None
        self._last_look = now
        is_quiet = self._is_quiet(last_heard)
        heard = max(last_heard, self._baseline)
        # A broker in this process answers in the very tick of a coarse clock (uvloop's counts milliseconds).
        if self._pinged is not None and heard >= self._pinged:
            self._pinged = None
        if now - heard >= self._timeout:
            return Verdict.LOST
        if self._pinged is not None and now - self._pinged >= min(UNANSWERED_S, self._timeout / 4):
            return Verdict.DIAL_BESIDE
        is_waited_for = self._asked is not None and now - self._asked >= self._suspicious
        is_cut_off = is_quiet and self._lively_looks >= BUSY_LOOKS and now - heard >= self._suspicious
        if has_moved or is_waited_for or is_cut_off:
            return self._asks(Verdict.PRESS, now)
        if self._pinged is None and now - heard >= self._timeout / 4:
            return self._asks(Verdict.PING, now)
        return Verdict.FINE

    def _is_quiet(self, last_heard: float) -> bool:
        """Count the looks with traffic. Returns whether nothing came since the last one."""
        if last_heard > self._last_heard:
            self._last_heard = last_heard
            self._lively_looks += 1
            return False
        if self._lively_looks < BUSY_LOOKS:
            self._lively_looks = 0
        return True

    def _asks(self, verdict: Verdict, now: float) -> Verdict:
        self._asked = now
        self._pinged = now if self._pinged is None else self._pinged
        self._lively_looks = 0
        return verdict
