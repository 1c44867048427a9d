"""What a worker is told, and the lines that it prints."""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import msgspec

from benchmarks.peers.seam import Where  # noqa: TC001 (msgspec reads the annotations)

__all__ = ["Plan", "Role", "report"]

Role = Literal["publish", "subscribe", "echo", "ping", "answer", "ask", "open"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker does; the phases are told on its stdin, one JSON object a line."""

    role: Role
    where: Where
    size: int = 128
    topics: int = 1
    connections: int = 1
    """Clients in this process."""
    seed: int = 1


def report(event: str, **fields: Any) -> None:
    """Print one JSON line."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()
