"""What an attack is: a function, and what its row in the table says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.abuse.world import World

__all__ = ["Attack"]


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of attack.

    `made` and `counted` are what a small attack must have made and what the broker must have counted, by name; exact.
    The names of the broker's counters are paths in its statistics, as `transport.dropped.garbage`.
    """

    name: str
    about: str
    """For the table."""
    run: Callable[[World], Awaitable[None]]
    made: Mapping[str, int] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    """Of the broker, when it is attacked with full strength; otherwise it has its defaults."""
