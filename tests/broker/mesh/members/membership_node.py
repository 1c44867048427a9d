"""One node's membership with the calls that tests make of it, and the claims it hears."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from quicbus.wire.node_frames import Claim, MemberRecord, Signed, Update
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.members.membership import Membership
from quicbus_broker.mesh.members.table import MemberTable
from quicbus_broker.mesh.outputs import MemberChanged, NewsLearned, Output, State
from tests.broker.mesh.fake_signing import FakeSigning, node_id

if TYPE_CHECKING:
    from collections.abc import Callable

ME, A, B, C, D, E = (node_id(number) for number in range(6))
BOOT = 100
CONFIG = MeshConfig()


class Node:
    """A membership with the calls that tests make of it; each returns its outputs."""

    def __init__(
        self, *members: Signed | Claim, config: MeshConfig = CONFIG, connected: tuple[bytes, ...] = ()
    ) -> None:
        self.table = MemberTable()
        self.signing = FakeSigning(ME)
        self.membership = Membership(
            ME, self.table, self.signing, config, random.Random(1), lambda node: node in connected
        )
        self.now = 10.0
        self.started = self.call(self.membership.start, "me", BOOT, "hybrid", ("me:1",))
        self.take(*members)

    def call(self, method: Callable[..., None], *args: Any, **options: Any) -> list[Output]:
        outputs: list[Output] = []
        method(*args, self.now, outputs, **options)
        return outputs

    def take(self, *news: Signed | Claim, source: bytes | None = E, is_comparison: bool = False) -> list[Output]:
        records = [item for item in news if isinstance(item, Signed)]
        claims = [item for item in news if isinstance(item, Claim)]
        return self.call(self.membership.take, records, claims, source, is_comparison=is_comparison)

    def suspect(self, node: bytes) -> list[Output]:
        return self.call(self.membership.suspect, node)

    def alive_seen(self, node: bytes) -> list[Output]:
        return self.call(self.membership.alive_seen, node)

    def tick_at(self, now: float) -> list[Output]:
        self.now = now
        return self.call(self.membership.tick)

    def state(self, node: bytes) -> State | None:
        entry = self.table.get(node)
        return entry.state if entry else None

    @property
    def own(self) -> MemberRecord:
        return self.membership.own

    def own_news(self) -> NewsLearned:
        return NewsLearned(None, records=(self.membership.own_signed,))

    def own_update(self) -> Update:
        return Update(records=(self.membership.own_signed,))


def suspect(node: bytes, incarnation: int = 1, by: bytes = C, age_s: int = 0) -> Claim:
    return Claim(node, incarnation, "suspect", by, age_s)


def failed(node: bytes, incarnation: int = 1, by: bytes = C, age_s: int = 0) -> Claim:
    return Claim(node, incarnation, "failed", by, age_s)


def changed(node: bytes, before: State | None, after: State, *, has_moved: bool = False) -> MemberChanged:
    return MemberChanged(node, node.hex()[:4], before, after, has_moved)


ALIVE, SUSPECT, FAILED, LEFT = State.ALIVE, State.SUSPECT, State.FAILED, State.LEFT
