"""How a message looks: for people, as a JSON line, or byte for byte."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quicbus import Message

__all__ = ["human_line", "json_line", "message_fields"]

_SHOWN_BYTES = 32


def message_fields(message: Message) -> dict[str, Any]:
    """Return the message as JSON can hold it: `payload` where it is UTF-8, else `payload_base64`."""
    fields: dict[str, Any] = {"topic": message.topic}
    try:
        fields["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        fields["payload_base64"] = base64.b64encode(message.payload).decode()
    fields["headers"] = dict(message.headers)
    fields["publisher"] = message.publisher
    fields["id"] = str(message.id)
    if message.reply_to:
        fields["reply_to"] = message.reply_to
    return fields


def json_line(message: Message) -> bytes:
    return json.dumps(message_fields(message), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def human_line(message: Message, *, headers: bool, styled: bool) -> bytes:
    """Return `topic payload`, on a terminal with colour. Control characters are escaped: a message moves no cursor."""
    try:
        payload = _harmless(message.payload.decode())
    except UnicodeDecodeError:
        more = "…" if len(message.payload) > _SHOWN_BYTES else ""
        payload = f"<{len(message.payload)} bytes: {message.payload[:_SHOWN_BYTES].hex()}{more}>"
    topic = _harmless(message.topic)
    line = f"\x1b[36m{topic}\x1b[0m {payload}" if styled else f"{topic} {payload}"
    if headers:
        line += "".join(f"\n    {_harmless(key)}: {_harmless(str(value))}" for key, value in message.headers.items())
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _harmless(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
