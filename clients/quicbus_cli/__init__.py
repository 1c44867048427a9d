"""The `quicbus` command."""

from quicbus_cli.main import main

__all__ = ["main"]
