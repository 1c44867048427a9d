"""Short words for running `quicbus` commands against a broker process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.testing.launcher import BrokerProcess, Ended, Launched, quicbus_command, run_quicbus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["quicbus", "start", "subscriber"]


def quicbus(broker: BrokerProcess, *arguments: str, stdin: str | bytes = b"", cwd: Path | None = None) -> Ended:
    """Run a command to its end."""
    return run_quicbus(
        *arguments, stdin=stdin, cwd=cwd, environment={**broker.environment, "QUICBUS_ENGINE": broker.engine}
    )


def start(
    broker: BrokerProcess, *arguments: str, stdin: bool = False, environment: Mapping[str, str] | None = None
) -> Launched:
    """Start a command that goes on."""
    environment = {**broker.environment, "QUICBUS_ENGINE": broker.engine, **(environment or {})}
    return Launched([*quicbus_command(), *arguments], environment=environment, stdin=stdin)


def subscriber(broker: BrokerProcess, *arguments: str, environment: Mapping[str, str] | None = None) -> Launched:
    """Start `quicbus sub` and return once the broker has confirmed its subscription."""
    process = start(broker, "sub", *arguments, environment=environment)
    try:
        process.wait_line("subscribed to", stream="stderr")
    except BaseException:
        process.close()
        raise
    return process
