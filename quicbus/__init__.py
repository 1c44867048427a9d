"""quicbus: publish and subscribe over QUIC, encrypted and authenticated."""

from quicbus.exceptions import *  # noqa: F403
