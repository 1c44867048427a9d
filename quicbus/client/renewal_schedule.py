"""When a certificate is to be renewed, when to try again, and when to warn that it ends. Pure; nodes use it too."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

__all__ = ["WARN_DAYS", "RenewalSchedule"]

WARN_DAYS = (30, 7, 1)
"""So many days before its end a certificate that was not renewed is warned of, and once more when it has ended."""
FIRST_PAUSE = dt.timedelta(seconds=1)
LONGEST_PAUSE = dt.timedelta(hours=6)
SHORTEST_LAST_PAUSE = dt.timedelta(minutes=1)
"""Pauses grow up to a hundredth of the life, within these two: short lives are tried often, long ones seldom."""
LEFT_SHARE = 10
"""Nor are they longer than this part of what is left: once a certificate has ended, its owner is cut off meanwhile."""
SPREAD = 0.1
"""Of the last third, over which those that were issued together ask."""


class RenewalSchedule:
    """Of one certificate. Make another one when it was renewed."""

    def __init__(
        self, not_before: dt.datetime, renew_at: dt.datetime, not_after: dt.datetime, rng: random.Random
    ) -> None:
        self.not_after = not_after
        self._rng = rng
        last = not_after - renew_at
        self._due_at = renew_at + last * SPREAD * rng.random()
        life = not_after - not_before
        self._longest_pause = min(max(life / 100, SHORTEST_LAST_PAUSE), LONGEST_PAUSE)
        self._pause = FIRST_PAUSE
        # A warning before the first attempt would be of no use: those within the last third count.
        warnings = [dt.timedelta(days=days) for days in WARN_DAYS if dt.timedelta(days=days) <= last]
        self._warnings = [*(warnings or [last / 3]), dt.timedelta(0)]
        self._has_ended = False

    def is_due(self, now: dt.datetime) -> bool:
        """Whether to ask for a new certificate now. When it ends is such a time, and pauses begin anew."""
        if now >= self.not_after and not self._has_ended:
            self._has_ended, self._due_at, self._pause = True, now, FIRST_PAUSE
        return now >= self._due_at

    def failed(self, now: dt.datetime) -> dt.timedelta:
        """An attempt has failed: the next one is due after a pause, which is returned and grows."""
        longest = min(self._longest_pause, max((self.not_after - now) / LEFT_SHARE, SHORTEST_LAST_PAUSE))
        pause = min(self._pause, longest) * (0.5 + self._rng.random())
        self._pause = min(2 * self._pause, longest)
        self._due_at = now + pause
        return pause

    def warning(self, now: dt.datetime) -> bool:
        """Tell whether to warn now: once for each time that is passed, and for those missed meanwhile once in all."""
        passed = [before for before in self._warnings if now >= self.not_after - before]
        self._warnings = [before for before in self._warnings if before not in passed]
        return bool(passed)

    def wait_s(self, now: dt.datetime) -> float:
        """Return the seconds until something is due."""
        times = [self._due_at, *(self.not_after - before for before in self._warnings)]
        return max(0.0, (min(times) - now).total_seconds())
