"""What clients were not permitted to do: counted, and told to the log with the line of the table that decided.

A client that tries again and again has one line a minute, and all of them together a few: nobody can fill the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus import limits
from quicbus_broker.line_budget import LineBudget
from quicbus_broker.permissions.explain import explain

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.logs import NodeAdapter
    from quicbus_broker.permissions import Action, Policy

__all__ = ["Denials"]

_MAX_SHOWN = 200
"""Characters of a topic or filter."""


class Denials:
    """`count` holds all of them. `log` gets what `limits` let through."""

    def __init__(self, policy: Policy, clock: Callable[[], float], log: NodeAdapter) -> None:
        self.count = 0
        self._policy = policy
        self._clock = clock
        self._log = log
        self._told: dict[tuple[str, Action], list[float]] = {}
        """When a client was last told of, and how many were not told since."""
        self._lines = LineBudget(limits.REFUSAL_LINES, limits.REFUSAL_LINES_S, clock)

    def add(self, name: str, action: Action, subject: str) -> None:
        """`subject` is the topic or filter, `name` that of the client's certificate."""
        self.count += 1
        now = self._clock()
        told = self._told.get((name, action))
        if told is not None and now < told[0] + limits.DENIAL_PAUSE_S:
            told[1] += 1
            return
        if not self._lines.spend():
            return
        self._told.pop((name, action), None)
        self._told[name, action] = [now, 0]
        if len(self._told) > limits.DENIAL_NAMES:
            del self._told[next(iter(self._told))]
        self._tell(name, action, subject, int(told[1]) if told is not None else 0)

    def _tell(self, name: str, action: Action, subject: str, more: int) -> None:
        why = explain(self._policy.table, name, action, subject)
        where = f" ({why.file}:{why.line})" if why.line else ""
        since = f"; {more} more of this client since the last such line" if more else ""
        shown = subject if len(subject) <= _MAX_SHOWN else f"{subject[:_MAX_SHOWN]}..."
        self._log.warning("< %s may not %s %s: %s%s%s", name, action, shown, why.why, where, since)
