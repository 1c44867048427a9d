"""When a worker that has died is started again. Pure."""

from __future__ import annotations

__all__ = ["Restarts"]

FIRST_PAUSE_S = 0.5
"""So long its clients wait in any case: they dial anew after two seconds of silence."""
MAX_PAUSE_S = 30.0
STEADY_S = 60.0
"""One that has lived for so long died of something new."""


class Restarts:
    """Of one worker: the pause doubles with each start that did not last."""

    def __init__(self) -> None:
        self._pause_s = FIRST_PAUSE_S

    def died(self, lived_s: float) -> float:
        """Return after how many seconds to start it again."""
        pause_s = FIRST_PAUSE_S if lived_s >= STEADY_S else self._pause_s
        self._pause_s = min(2 * pause_s, MAX_PAUSE_S)
        return pause_s
