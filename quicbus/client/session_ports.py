"""What stands around a session of a client: who proves, whom to trust, and who is told what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from quicbus.client.delivery import Leg
    from quicbus.client.session import Session
    from quicbus.transport.engine import Terminated
    from quicbus.wire import frames

__all__ = ["Prove", "SessionOwner", "SessionTrust", "SubscriptionOwner"]


class SessionTrust(Protocol):
    """The trust list, as a session needs it."""

    def learned(self, signed: bytes) -> None:
        """The broker told the mesh's trust list."""
        ...

    def refusal(self, node: bytes) -> str:
        """Return why not to talk to a broker, by its node id; empty where nothing is against it."""
        ...


class Prove(Protocol):
    """Makes the proof of possession."""

    def __call__(self, channel_binding: bytes, /) -> tuple[list[bytes], bytes]:
        """Return the chain in DER and the signature."""
        ...


class SessionOwner(Protocol):
    """What the session calls, from the event loop; nothing of it waits or raises."""

    def welcomed(self, session: Session) -> None: ...

    def accepted(self, session: Session) -> None: ...

    def going_away(self, session: Session, frame: frames.GoAway) -> None:
        """The broker will close; answer with `drain`."""
        ...

    def drained(self, session: Session) -> None:
        """The broker has taken all that was sent before `go_away`."""
        ...

    def credit_changed(self, session: Session) -> None:
        """The broker told what became of batches; there may be room to publish."""
        ...

    def no_responder(self, session: Session, request: int) -> None: ...

    def refused(self, session: Session, topic: str, frame: frames.Refused) -> None:
        """The broker did not take messages; `topic` is empty where it is not known."""
        ...

    def brokers_changed(self, session: Session) -> None:
        """The broker named further brokers, in place of those it had named."""
        ...

    def closed(self, session: Session, termination: Terminated) -> None: ...


class SubscriptionOwner(Protocol):
    """What belongs to one subscription, likewise."""

    def confirmed(self, leg: Leg) -> None: ...

    def arrived(self) -> None:
        """The inbox holds more."""
        ...

    def dropped_more(self) -> None:
        """The broker dropped more messages of it."""
        ...

    def detached(self, leg: Leg) -> None:
        """The connection that carried it is gone."""
        ...

    def ended(self, leg: Leg) -> None:
        """The broker has ended it, and all that it sent has arrived; `leg.closed` says why."""
        ...
