"""Where the `quicbus` command begins: Ctrl-C ends it without a traceback while its modules are loaded, too."""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> int:
    """Run the command that `sys.argv` names and return its exit code."""
    python = signal.getsignal(signal.SIGINT)
    if python is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from quicbus_cli.main import main  # takes some tenths of a second, more on a small machine

    signal.signal(signal.SIGINT, python)
    return main()
