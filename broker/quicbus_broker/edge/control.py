"""The control stream towards one client."""

from quicbus.transport.control import ControlStream

__all__ = ["ControlStream"]
