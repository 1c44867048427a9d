"""Why something is allowed or not: the line of the file that decides, and a sentence. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quicbus_broker.permissions.grants import Grant
from quicbus_broker.permissions.reserved import REPLIES, RESERVED, is_reply_topic
from quicbus_broker.permissions.table import Action

if TYPE_CHECKING:
    from quicbus_broker.permissions.table import Table

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision about one name. `line` is 0, and `text` empty, where no line of the file decides."""

    name: str
    action: Action
    subject: str
    """Topic or filter."""
    allowed: bool
    why: str
    role: str | None
    """The one that decides."""
    roles: tuple[str, ...]
    """All that the name has."""
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        verb = "may" if self.allowed else "may not"
        head = f"{'allowed' if self.allowed else 'denied'}: {self.name} {verb} {self.action} {self.subject}"
        return f"{head}\n  {self.why}" + (f"\n  {self.file}:{self.line}: {self.text}" if self.line else "")

    def fields(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "allowed": self.allowed,
            "name": self.name,
            "action": str(self.action),
            "topic" if self.action is Action.PUBLISH else "filter": self.subject,
            "why": self.why,
            "role": self.role,
            "roles": self.roles,
            "file": self.file or None,
            "line": self.line or None,
            "text": self.text or None,
        }


def explain(table: Table, name: str, action: Action, subject: str) -> Explanation:
    """Decide as a broker with this table does on a client with this name; the topic or filter must be valid."""
    if subject.startswith(RESERVED.decode()):
        return _reserved(table, name, action, subject)
    grant = Grant(table, name)
    decision = grant.decide(action, subject)
    role, line = decision.role, decision.rule.line if decision.rule is not None else 0
    if role is not None:
        how = "overlaps what role" if action is Action.SUBSCRIBE else "matches what role"
        how = f"role {role.name} allows it" if decision.allowed else f"it {how} {role.name} denies"
    elif grant.roles:
        line = grant.roles[0].line
        names = ", ".join(each.name for each in grant.roles)
        plural = len(grant.roles) > 1
        what = "covers this filter" if action is Action.SUBSCRIBE else "matches this topic"
        how = f"{name} has the role{'s' if plural else ''} {names}, and no {action} filter there {what}"
    else:
        line = table.default_line or table.line
        how = _default(table, name)
    return _explanation(table, name, action, subject, decision.allowed, how, role.name if role else None, line)


def _default(table: Table, name: str) -> str:
    if not table.restricts:
        return "everyone may do everything: there is no role" if table.line else "there is no table [permissions]"
    return f"no role matches {name}, so the default decides"


def _reserved(table: Table, name: str, action: Action, subject: str) -> Explanation:
    allowed = action is Action.PUBLISH and is_reply_topic(subject.encode())
    if allowed:
        why = "who was told a reply topic may always reply"
    elif subject.startswith(REPLIES.decode()) and action is Action.SUBSCRIBE:
        why = "only the session that a reply topic was made for may subscribe to it"
    else:
        why = "topics below $quicbus/ are for the nodes themselves"
    return _explanation(table, name, action, subject, allowed, why, None, 0)


def _explanation(
    table: Table, name: str, action: Action, subject: str, allowed: bool, why: str, role: str | None, line: int
) -> Explanation:
    roles = tuple(each.name for each in table.roles if each.matches(name))
    return Explanation(name, action, subject, allowed, why, role, roles, table.file, line, table.text(line))
