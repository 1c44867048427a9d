"""Logging for processes: one handler on stderr, as text or JSON lines, with node and peer id on each line.

The library itself only logs to loggers under `quicbus`; an application sets logging up as it likes. Code that knows
its node or peer passes them as `extra={"node": ..., "peer": ...}` or logs through `logger_for`.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = [
    "JsonFormatter",
    "LoggingSettings",
    "NodeAdapter",
    "TextFormatter",
    "harmless",
    "logger_for",
    "set_node",
    "set_up_logging",
]

_LOGGERS = ("quicbus", "quicbus_broker", "quicbus_cli")
_ABSENT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """How much is logged, and how."""

    log_level: Literal["debug", "info", "warning", "error", "critical"] | None = None
    """Least severe level that is logged; without it `warning` for the broker and `critical` for all other commands."""
    log_format: Literal["text", "json"] = "text"
    """`json`: one object a line with time, level, logger, node, peer and message."""


def harmless(text: str, *, keep: str = "") -> str:
    """Return the text with escapes for what is not printable, but for the characters in `keep`.

    What a peer says (a topic, the reason of a close) may hold line breaks, which would forge a line of a log, and
    sequences that a terminal obeys.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


class NodeAdapter(logging.LoggerAdapter[logging.Logger]):
    """A logger that knows its node and, where there is one, its peer."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def logger_for(name: str, *, node: str = "", peer: str = "") -> NodeAdapter:
    """Return the logger `name` that puts `node` and `peer` on each of its lines."""
    extra = {key: value for key, value in (("node", node), ("peer", peer)) if value}
    return NodeAdapter(logging.getLogger(name), extra)


class _FillIn(logging.Filter):
    """Gives every record a node and a peer: what it was logged with, else the process's node, else a dash."""

    node = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.node = getattr(record, "node", "") or self.node or _ABSENT
        record.peer = getattr(record, "peer", "") or _ABSENT
        return True


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00.123 WARNING node=1f0c… peer=alice@127.0.0.1:5000 quicbus.edge: …`"""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "milliseconds")
        head = f"{when} {record.levelname} node={_field(record, 'node')} peer={_field(record, 'peer')} {record.name}"
        text = f"{head}: {harmless(record.getMessage())}"
        if record.exc_info:
            text += "\n" + harmless(self.formatException(record.exc_info), keep="\n\t")
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "node": _field(record, "node"),
            "peer": _field(record, "peer"),
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def _field(record: logging.LogRecord, name: str) -> str:
    return str(getattr(record, name, "") or _ABSENT)


_fill_in = _FillIn()


def set_node(node: str) -> None:
    """Name the node that this process is; it stands on every line that names no other."""
    _fill_in.node = node


def set_up_logging(settings: LoggingSettings, *, default_level: str = "warning", stream: IO[str] | None = None) -> None:
    """Send what quicbus logs to `stream` (stderr). Called again, it replaces what it set up before."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.set_name("quicbus")
    handler.addFilter(_fill_in)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        for old in [each for each in logger.handlers if each.get_name() == "quicbus"]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel((settings.log_level or default_level).upper())
        logger.propagate = False
