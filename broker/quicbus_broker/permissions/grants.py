"""What a table grants to one name: the rules of all roles that match it. Allows add up, any deny wins. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from quicbus.topics import SplitFilter
from quicbus_broker.permissions.table import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quicbus_broker.permissions.table import Role, Rule, Table

__all__ = ["Decision", "Grant"]


class Decision(msgspec.Struct, frozen=True):
    """Whether something is allowed. `role` and `rule`: what decided it; `None` where no rule did."""

    allowed: bool
    role: Role | None = None
    rule: Rule | None = None


class _Granted(msgspec.Struct, frozen=True):
    filter: SplitFilter
    role: Role
    rule: Rule


class Grant:
    """Of one table and one name. `decided` remembers topics; who fills it keeps it in bounds."""

    __slots__ = ("_allowed", "_denied", "decided", "is_unrestricted", "name", "roles", "table")

    def __init__(self, table: Table, name: str) -> None:
        self.table = table
        self.name = name
        self.roles = tuple(role for role in table.roles if role.matches(name))
        self.is_unrestricted = table.allows_unmatched and not self.roles
        self.decided: dict[bytes, bool] = {}
        self._allowed = {action: tuple(self._split(action, is_deny=False)) for action in Action}
        self._denied = {action: tuple(self._split(action, is_deny=True)) for action in Action}

    @property
    def rules(self) -> int:
        """How many rules it holds."""
        return sum(map(len, (*self._allowed.values(), *self._denied.values())))

    def decide(self, action: Action, subject: str) -> Decision:
        """Decide on publishing to a valid topic, or on subscribing to a valid filter.

        A subscribe is allowed where one allowed filter covers it and no denied one overlaps it.
        """
        if not self.roles:
            return Decision(self.table.allows_unmatched)
        wanted = SplitFilter(subject)
        for each in self._denied[action]:
            if each.filter.overlaps(wanted):
                return Decision(False, each.role, each.rule)
        for each in self._allowed[action]:
            if each.filter.covers(wanted):
                return Decision(True, each.role, each.rule)
        return Decision(False)

    def filters(self, action: Action, *, is_deny: bool) -> list[str]:
        """Return what is allowed, or denied, with the name in its place."""
        rules = (rule for _, rule in self._rules(action, is_deny=is_deny))
        return list(dict.fromkeys(rule.filter_for(self.name) for rule in rules))

    def _split(self, action: Action, *, is_deny: bool) -> Iterator[_Granted]:
        for role, rule in self._rules(action, is_deny=is_deny):
            yield _Granted(rule.split_for(self.name), role, rule)

    def _rules(self, action: Action, *, is_deny: bool) -> Iterator[tuple[Role, Rule]]:
        for role in self.roles:
            for rule in role.denied(action) if is_deny else role.allowed(action):
                yield role, rule
