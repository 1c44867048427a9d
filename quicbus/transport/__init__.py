"""Connections: the engine seam, the UDP endpoint above it, and what sessions are written against."""

from __future__ import annotations

__all__: list[str] = []
