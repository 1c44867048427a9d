"""What an attack must not have done to the broker and its good clients, as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.abuse.arena import Outcome
    from tests.abuse.attackers import Attack

__all__ = ["QUIET_MS", "RATIO_MAX", "RESIDENT_GROWTH", "after_any", "after_small", "after_strong"]

RATIO_MAX = 5.0
"""Of the good pair's p99 under attack to the quiet one."""
QUIET_MS = 1.0
"""A quiet p99 below it counts as this: a ratio of fractions of a millisecond is the scheduler's."""
RESIDENT_GROWTH = 64 * 1024 * 1024
"""What a broker may keep of an attack: memory that the allocator holds for the next one."""


def after_any(outcome: Outcome) -> list[str]:
    """Whatever the strength: nothing lost, no session failed."""
    found = []
    if outcome.lost or outcome.attacked.reconnects or not outcome.attacked.published:
        found.append(f"the good pair: {outcome.attacked}")
    if outcome.rise("transport.handler_errors"):
        found.append("a session failed")
    return found


def after_small(outcome: Outcome, attack: Attack) -> list[str]:
    """A small attack made exactly what it was meant to, and the broker counted exactly that."""
    found = after_any(outcome)
    if outcome.made != attack.made:
        found.append(f"made {outcome.made}, not {attack.made}")
    counted = {counter: outcome.rise(counter) for counter in attack.counted}
    if counted != attack.counted:
        found.append(f"counted {counted}, not {attack.counted}; in all {outcome.counted}")
    return found


def after_strong(outcome: Outcome, attack: Attack) -> list[str]:
    """With full strength: latency, memory and descriptors as well; what small attacks count was counted."""
    found = after_any(outcome)
    if outcome.attacked.p99_ms > RATIO_MAX * max(outcome.quiet.p99_ms, QUIET_MS):
        found.append(f"p99 {outcome.attacked.p99_ms:.1f} ms is {outcome.ratio:.1f} times the quiet one")
    if outcome.resident[2] - outcome.resident[0] > RESIDENT_GROWTH:
        found.append(f"keeps {(outcome.resident[2] - outcome.resident[0]) >> 20} MiB")
    found += [f"left over: {number} {name}" for name, number in outcome.left_over.items()]
    found += [f"not counted: {counter}" for counter in attack.counted if outcome.rise(counter) <= 0]
    return found
