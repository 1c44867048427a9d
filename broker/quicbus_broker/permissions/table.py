"""The `[permissions]` table as values: roles, their rules, and the line of the file on which each stands."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import translate
from functools import cached_property

from quicbus.topics import SplitFilter

__all__ = ["NAME_PLACE", "Action", "Role", "Rule", "Table"]

NAME_PLACE = "${name}"
"""In a filter: the name of the certificate's holder. Names hold neither `/` nor wildcards."""


class Action(StrEnum):
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


@dataclass(frozen=True, slots=True)
class Rule:
    """A filter as it was written, and the line on which it stands."""

    filter: str
    line: int
    _split: SplitFilter | None = field(init=False, repr=False, compare=False)
    """Of a filter that is the same for all names."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_split", None if NAME_PLACE in self.filter else SplitFilter(self.filter))

    def filter_for(self, name: str) -> str:
        return self.filter.replace(NAME_PLACE, name)

    def split_for(self, name: str) -> SplitFilter:
        return self._split or SplitFilter(self.filter_for(name))


@dataclass(frozen=True)
class Role:
    """What those may do whose names match one of the patterns of `match`: case-sensitive, `*`, `?` and `[...]`."""

    name: str
    line: int
    match: tuple[str, ...]
    publish: tuple[Rule, ...] = ()
    subscribe: tuple[Rule, ...] = ()
    deny_publish: tuple[Rule, ...] = ()
    deny_subscribe: tuple[Rule, ...] = ()

    def matches(self, name: str) -> bool:
        return self._pattern.fullmatch(name) is not None

    def allowed(self, action: Action) -> tuple[Rule, ...]:
        return self.publish if action is Action.PUBLISH else self.subscribe

    def denied(self, action: Action) -> tuple[Rule, ...]:
        return self.deny_publish if action is Action.PUBLISH else self.deny_subscribe

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(translate, self.match)))


@dataclass(frozen=True, slots=True)
class Table:
    """All roles. Without any, and with `allows_unmatched`, everyone may do everything."""

    roles: tuple[Role, ...] = ()
    allows_unmatched: bool = True
    """Whether a name that no role matches may do everything, or nothing."""
    file: str = ""
    """Where it was read; empty: nowhere."""
    line: int = 0
    """Of the header; 0: there is none."""
    default_line: int = 0
    lines: tuple[str, ...] = ()
    """The text of the file."""

    @property
    def restricts(self) -> bool:
        return bool(self.roles) or not self.allows_unmatched

    def where(self, line: int) -> str:
        """Return `FILE:LINE`."""
        return f"{self.file}:{line}"

    def text(self, line: int) -> str:
        """Return what stands on a line, without the space around it."""
        return self.lines[line - 1].strip() if 0 < line <= len(self.lines) else ""

    def __str__(self) -> str:
        if not self.restricts:
            return "everyone may publish and subscribe to everything" + (f" ({self.file})" if self.file else "")
        roles = f"{len(self.roles)} role{'' if len(self.roles) == 1 else 's'}"
        return f"{roles}, default {'allow' if self.allows_unmatched else 'deny'} ({self.file})"
