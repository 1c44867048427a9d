"""Permissions: the `[permissions]` table of quicbus.toml, what it grants to a name, and why."""

from quicbus_broker.permissions.grants import Decision, Grant
from quicbus_broker.permissions.policy import Policy
from quicbus_broker.permissions.read_table import TABLE_NAME, read_table
from quicbus_broker.permissions.reserved import REPLIES, RESERVED, is_reply_topic
from quicbus_broker.permissions.table import Action, Role, Rule, Table

__all__ = [
    "REPLIES",
    "RESERVED",
    "TABLE_NAME",
    "Action",
    "Decision",
    "Grant",
    "Policy",
    "Role",
    "Rule",
    "Table",
    "is_reply_topic",
    "read_table",
]
