"""Shares of groups that were sent to other nodes: what comes back is held against what was sent, to whom.

A node may give back all of a share, or parts of it in their order, each once. What it says of the content is not looked
at beyond that: what goes on is what was sent.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from msgspec.structs import replace

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import parse_body, peek_body, slice_body

if TYPE_CHECKING:
    from quicbus.wire.bundles import BundleBatch
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["SentShares", "ShareAltered", "ShareUnknown"]

SHARE_OVERHEAD = 512
"""Bytes that a share costs beside its body."""

_Key = tuple[bytes, int, str, str]


class ShareUnknown(Exception):
    """It was not sent to that node, came back already, or was sent too long ago."""


class ShareAltered(Exception):
    """It was sent, with other messages."""


class _Share:
    __slots__ = ("at", "batch", "returned")

    def __init__(self, batch: BundleBatch, at: float) -> None:
        self.batch = batch
        self.at = at
        self.returned = 0
        """How many of its first messages are past: given back, or not to be any more."""

    @property
    def size(self) -> int:
        return SHARE_OVERHEAD + len(self.batch.body)

    def holds(self, first: int) -> bool:
        """Whether it has the message of this index, and that may still come back."""
        start = first - self.batch.first
        return self.returned <= start < peek_body(self.batch.body)[0]

    def part(self, start: int, stop: int) -> bytes | None:
        """Return a body of some of its messages, `None` where it has not so many."""
        sent = parse_body(self.batch.body)
        if stop > sent.count:
            return None
        return sent.raw if stop - start == sent.count else slice_body(sent, start, stop).raw


class SentShares:
    """Bounded in bytes and time; the oldest are forgotten first."""

    def __init__(
        self, max_size: int = limits.SENT_SHARES_SIZE, retention_s: float = limits.SENT_SHARES_RETENTION_S
    ) -> None:
        self.size = 0
        self._max_size = max_size
        self._retention_s = retention_s
        self._shares: OrderedDict[_Key, list[_Share]] = OrderedDict()
        """Of one batch a node gets more than one share where parts of it came back from others."""

    def sent(self, node: NodeId, batch: BundleBatch, now: float) -> None:
        """Remember a share."""
        share = _Share(batch, now)
        self._shares.setdefault((node, batch.id, batch.group, batch.filter), []).append(share)
        self.size += share.size
        while self.size > self._max_size:
            self._drop(next(iter(self._shares)))

    def take_back(self, node: NodeId, returned: BundleBatch) -> BundleBatch:
        """Return what was sent of what comes back; raises `ShareUnknown` and `ShareAltered`."""
        key = node, returned.id, returned.group, returned.filter
        try:
            count = parse_body(returned.body).count
        except ProtocolViolation:
            raise ShareAltered from None
        share = next((each for each in self._shares.get(key, ()) if each.holds(returned.first)), None)
        if share is None:
            raise ShareUnknown
        start = returned.first - share.batch.first
        part = share.part(start, start + count)
        if part is None or part != returned.body or returned.publisher != share.batch.publisher:
            raise ShareAltered
        share.returned = start + count
        return replace(share.batch, first=returned.first, body=part)

    def expire(self, now: float) -> None:
        """Forget what was sent too long ago to come back."""
        while self._shares:
            key, shares = next(iter(self._shares.items()))
            if shares[0].at + self._retention_s > now:
                return
            self._drop(key)

    def forget(self, node: NodeId) -> None:
        """The node is no member any more."""
        for key in [key for key in self._shares if key[0] == node]:
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        self.size -= sum(share.size for share in self._shares.pop(key))
