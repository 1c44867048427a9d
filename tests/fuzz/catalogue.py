"""All targets, by name."""

from __future__ import annotations

from tests.fuzz.targets import identity, joining, mesh, sessions, texts, transport, wire

__all__ = ["TARGETS"]

TARGETS = {
    target.name: target
    for module in (wire, transport, identity, joining, mesh, sessions, texts)
    for target in module.TARGETS
}
