"""What a check of `quicbus doctor` returns: how it went, what was seen, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Finding", "State", "failure", "ok", "skipped", "split_remedy", "warning", "worst"]


class State(StrEnum):
    """Best first, but for `SKIPPED`, which says nothing about anything."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    """What was looked at, two or three words; findings of one check may be several."""
    state: State
    seen: str
    remedy: str = ""
    """What to do, empty where nothing is to be done."""

    def as_dict(self) -> dict[str, str]:
        return {"check": self.check, "state": self.state.value, "seen": self.seen, "remedy": self.remedy}


def ok(check: str, seen: str) -> Finding:
    return Finding(check, State.OK, seen)


def warning(check: str, seen: str, remedy: str) -> Finding:
    """It works, or may work, and will be a nuisance."""
    return Finding(check, State.WARNING, seen, remedy)


def failure(check: str, seen: str, remedy: str) -> Finding:
    """Something that is asked for here does not work until the remedy is applied."""
    return Finding(check, State.FAILURE, seen, remedy)


def skipped(check: str, why: str, remedy: str = "") -> Finding:
    """It could not be looked at, or cannot be known from here."""
    return Finding(check, State.SKIPPED, why, remedy)


def split_remedy(sentence: str) -> tuple[str, str]:
    """Cut a sentence of quicbus's errors, `what is wrong; what to do`, into its two parts."""
    seen, _, remedy = sentence.partition("; ")
    return seen, remedy


def worst(findings: Iterable[Finding]) -> State:
    """Return `FAILURE` if there is one, else `WARNING`, else `OK`."""
    states = {finding.state for finding in findings}
    return next((state for state in (State.FAILURE, State.WARNING) if state in states), State.OK)
