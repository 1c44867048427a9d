"""The table in force, with what was decided by it: the grant of each name, and the topics asked for so far."""

from __future__ import annotations

from quicbus import limits
from quicbus.identity.names import is_name
from quicbus_broker.permissions.grants import Grant
from quicbus_broker.permissions.reserved import RESERVED
from quicbus_broker.permissions.table import Action, Table

__all__ = ["Policy"]


class Policy:
    """One for a node. Decisions are remembered in bounds, and forgotten when the table is replaced."""

    def __init__(self, table: Table | None = None) -> None:
        self.table = table or Table()
        self.restricts = self.table.restricts
        self._grants: dict[str, Grant] = {}
        self._rules = 0
        """Of all of them."""
        self._remembering: dict[Grant, None] = {}
        """Grants that have decided on a topic, also those that are no longer in `_grants`."""
        self._topics = 0
        self._topics_size = 0

    def replace(self, table: Table) -> None:
        """Decide by another table from now on. Grants that were given out are of the old one: ask for them again."""
        self.table = table
        self.restricts = table.restricts
        self._forget_grants()
        self._forget_topics()

    def grant(self, name: str) -> Grant:
        """Return what the table grants to a name. One that no certificate can have gets nothing of a table."""
        grant = self._grants.get(name)
        if grant is None:
            table = self.table if is_name(name) else Table(allows_unmatched=not self.restricts)
            grant = Grant(table, name)
            self._remember(grant)
        return grant

    def may_publish(self, grant: Grant, topic: bytes) -> bool:
        """Whether a topic, none of quicbus itself, is allowed."""
        allowed = grant.decided.get(topic)
        return self._decide(grant, topic) if allowed is None else allowed

    def may_relay(self, publisher: str, topic: bytes, reply_to: bytes) -> bool:
        """Whether a batch of another node is allowed here: by the name that the node has verified."""
        if not self.restricts:
            return True
        grant = self.grant(publisher)
        if grant.is_unrestricted:
            return True
        if not topic.startswith(RESERVED) and not self.may_publish(grant, topic):
            return False
        return not reply_to or reply_to.startswith(RESERVED) or self.may_publish(grant, reply_to)

    def _decide(self, grant: Grant, topic: bytes) -> bool:
        if self._topics >= limits.CACHED_DECISIONS or self._topics_size + len(topic) > limits.CACHED_DECISIONS_SIZE:
            self._forget_topics()
        try:
            allowed = grant.decide(Action.PUBLISH, topic.decode()).allowed
        except UnicodeDecodeError:  # the reply topic of another node's batch: nobody has checked it
            allowed = False
        grant.decided[topic] = allowed
        self._remembering[grant] = None
        self._topics += 1
        self._topics_size += len(topic)
        return allowed

    def _remember(self, grant: Grant) -> None:
        # Other nodes say which names there are.
        if len(self._grants) >= limits.CACHED_GRANTS or self._rules + grant.rules > limits.CACHED_RULES:
            self._forget_grants()
        self._grants[grant.name] = grant
        self._rules += grant.rules

    def _forget_grants(self) -> None:
        self._grants.clear()
        self._rules = 0

    def _forget_topics(self) -> None:
        for grant in self._remembering:
            grant.decided.clear()
        self._remembering.clear()
        self._topics = self._topics_size = 0
