"""Who is a member, and in what state: SWIM's rules for records and claims, with Lifeguard's suspicion.

Of two records of a member the higher incarnation counts. A claim speaks of one incarnation: suspect beats alive, failed
beats both, and only the member itself can answer, by a record of a higher incarnation. That it has left it says itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from quicbus.wire.node_frames import Claim, MemberRecord, Update
from quicbus_broker.mesh.conduct import Ask, Bucket, Conduct
from quicbus_broker.mesh.members.own_record import OwnRecord
from quicbus_broker.mesh.members.standings import Standings
from quicbus_broker.mesh.members.table import Entry
from quicbus_broker.mesh.members.turnover import REFUTATIONS, Turnover
from quicbus_broker.mesh.outputs import (
    MemberChanged,
    MemberForgotten,
    Misbehaved,
    NewsLearned,
    SendFrame,
    State,
    Superseded,
)
from quicbus_broker.mesh.signing import Expired, Forged, Revoked

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from quicbus.wire.node_frames import Signed
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.members.table import MemberTable
    from quicbus_broker.mesh.outputs import NodeId, Output
    from quicbus_broker.mesh.signing import Signing

__all__ = ["Membership"]

MODES = ("hybrid", "server", "client")
MAX_ADDRESSES = 16
"""A host with more interfaces names the best."""
MAX_ADDRESS_SIZE = 260
"""A DNS name has at most 253 bytes."""
MAX_VIA = 16
MAX_NAME_SIZE = 255


class _Front(msgspec.Struct):
    """What tells whether a record is worth opening."""

    node: bytes
    boot: int
    incarnation: int


_fronts = msgspec.msgpack.Decoder(_Front)
Changes = dict[bytes, Entry | None]
"""What changed in one call: the entries as they were before it."""


class Membership:
    """Changes the table, and tells what became of each member. `own` and `own_signed` exist from `start` on."""

    def __init__(
        self,
        me: NodeId,
        table: MemberTable,
        signing: Signing,
        config: MeshConfig,
        rng: random.Random,
        is_connected: Callable[[NodeId], bool] = lambda node: False,
        conduct: Conduct | None = None,
    ) -> None:
        """`is_connected`: whoever is accused and can be reached directly is told at once, so that it can answer."""
        self._me = me
        self._table = table
        self._signing = signing
        self._is_connected = is_connected
        self._own = OwnRecord(signing)
        self._standings = Standings(config)
        self._conduct = conduct or Conduct(table.__len__)
        self._turnover = Turnover()
        self._refuting = Bucket(REFUTATIONS[0], 0.0)
        self._refute_at = math.inf
        self._refuted = 0
        """What is to be refuted then."""
        self._is_over = False
        """It has left, or a later boot took its place: nothing is refuted any more."""
        self.refutations = 0

    @property
    def own(self) -> MemberRecord:
        return self._own.record

    @property
    def own_signed(self) -> Signed:
        return self._own.signed

    # --- about this node ---

    def start(
        self, name: str, boot: int, mode: str, addresses: tuple[str, ...], now: float, outputs: list[Output]
    ) -> None:
        """Make the own record. Call it once, before everything else."""
        entry = self._table.get(self._me)
        if entry is not None and entry.record.boot == boot:
            self._own.adopt(entry.record, entry.signed)
            return
        self._own.begin(
            MemberRecord(node=self._me, name=name, boot=boot, incarnation=boot, mode=mode, addresses=addresses)
        )
        self._own_changed(outputs)

    def set_addresses(self, addresses: tuple[str, ...], now: float, outputs: list[Output]) -> None:
        """Tell others where this node may be dialed; nothing happens where that is known."""
        if not self._is_over and self._own.moved(addresses=addresses[:MAX_ADDRESSES]):
            self._own_changed(outputs)

    def set_via(self, nodes: tuple[NodeId, ...], now: float, outputs: list[Output]) -> None:
        """Tell others through whom this node is reached; nothing happens where that is known."""
        if not self._is_over and self._own.moved(via=nodes[:MAX_VIA]):
            self._own_changed(outputs)

    def renewed(self, now: float, outputs: list[Output]) -> None:
        """The own certificate was renewed: the record must not end with the old one."""
        if not self._is_over:
            self._own.seal_again()
            self._own_changed(outputs)

    def leave(self, now: float, outputs: list[Output]) -> None:
        """Say goodbye to all. Leaving twice is fine."""
        if self._is_over:
            return
        self._is_over = True
        self._own.leave()
        self._own_changed(outputs)

    def _own_changed(self, outputs: list[Output]) -> None:
        record = self._own.record
        state = State.LEFT if record.left else State.ALIVE
        self._table.put(self._table.entry(record, self._own.signed, state))
        outputs.append(NewsLearned(None, records=(self._own.signed,)))

    def _refute(self, incarnation: int, source: NodeId | None, now: float, outputs: list[Output]) -> None:
        """Answer what is said of this node in an incarnation that it does not stand above."""
        if self._is_over:
            return
        if not self._own.is_believable(incarnation):
            _blame(source, "an incarnation of this node that it cannot have had", outputs)
            return
        if not self._refuting.take(1.0, *REFUTATIONS, now):
            self._refuted = max(self._refuted, incarnation)
            self._refute_at = min(self._refute_at, now + 1.0 / REFUTATIONS[1])
            return
        self._own.refute(incarnation)
        self.refutations += 1
        self._own_changed(outputs)
        self._answer(source, outputs)

    def _answer(self, source: NodeId | None, outputs: list[Output]) -> None:
        # News go to neighbours: whoever is none is told directly.
        if source is not None and not self._is_over:
            outputs.append(SendFrame(source, Update(records=(self._own.signed,))))

    # --- what others say ---

    def take(
        self,
        records: Sequence[Signed],
        claims: Sequence[Claim],
        source: NodeId | None,
        now: float,
        outputs: list[Output],
        *,
        is_comparison: bool = False,
    ) -> None:
        """Take what a node tells of members; what changes something here goes on as news.

        `is_comparison`: it comes from a table that may have been apart for long. Who failed there and is alive here
        becomes a suspect first, so that two halves of a mesh that meet again do not expel each other.
        """
        changes: Changes = {}
        about_me: list[int] = []
        if claims and source is not None and self._conduct.is_spent(source, Ask.CLAIMS, now):
            self._conduct.refused["claims_too_often"] += len(claims)
            claims = [claim for claim in claims if claim.node == self._me]
        new_records = [signed for signed in records if self._take_record(signed, source, now, changes, outputs)]
        new_claims: list[Claim] = []
        for claim in claims:
            # Most claims of a flood come again by every link.
            entry = self._table.get(claim.node)
            if entry is None or (claim.incarnation != entry.incarnation and claim.node != self._me):
                continue
            if claim.node == self._me:
                about_me.append(claim.incarnation)
            elif entry.is_alive:
                taken = self._take_claim(claim, entry, now, is_comparison, changes)
                if taken is not None:
                    new_claims.append(taken)
            elif claim.age_s and claim.node in changes:
                self._standings.gone(claim.node, entry.state, now - _believed_age_s(claim, changes[claim.node]))
        if about_me:
            self._take_claims_of_self(about_me, source, now, outputs)
        if new_claims and source is not None:
            self._conduct.spend(source, Ask.CLAIMS, now, len(new_claims))
        self._tell(source, new_records, new_claims, changes, outputs)

    def _take_record(
        self, signed: Signed, source: NodeId | None, now: float, changes: Changes, outputs: list[Output]
    ) -> bool:
        """Return whether the record is newer than what is known."""
        front = _front_of(signed)
        if front is not None and self._is_known(front, signed):
            return False
        if front is not None and not self._turnover.may_renew(front.node, now):
            self._conduct.refused["records_too_often"] += 1
            return False
        if source is not None and self._conduct.is_spent(source, Ask.EXPIRED, now):
            self._conduct.refused["expired_too_often"] += 1
            return False
        try:
            record = self._signing.open_record(signed)
        except (Expired, Revoked):
            if source is not None:
                self._conduct.spend(source, Ask.EXPIRED, now)
            return False
        except Forged as forged:
            _blame(source, forged.why, outputs)
            return False
        flaw = _flaw(record)
        if flaw:
            _blame(source, flaw, outputs)
            return False
        if record.node == self._me:
            self._take_record_of_self(record, source, now, outputs)
            return False
        entry = self._table.get(record.node)
        if entry is not None and _rank(record, signed) <= _rank(entry.record, entry.signed):
            return False
        if entry is not None:
            self._turnover.renewed(record.node, now)
        changes.setdefault(record.node, entry)
        if record.left:
            self._table.put(self._table.entry(record, signed, State.LEFT))
            self._standings.gone(record.node, State.LEFT, now)
        else:
            self._table.put(self._table.entry(record, signed, State.ALIVE))
            self._standings.cleared(record.node)
        return True

    def _is_known(self, front: _Front, signed: Signed) -> bool:
        """Return whether opening it, which costs two signatures, can be left out."""
        entry = self._table.get(front.node)
        if entry is None or front.incarnation > entry.incarnation:
            return False
        if front.node == self._me and front.boot > entry.record.boot:
            # An earlier process may have refuted its way above the incarnation with which a later one began.
            return False
        return front.incarnation < entry.incarnation or signed.payload == entry.signed.payload

    def _take_record_of_self(
        self, record: MemberRecord, source: NodeId | None, now: float, outputs: list[Output]
    ) -> None:
        own = self._own.record
        if record.boot > own.boot:
            if not self._is_over:
                self._is_over = True
                outputs.append(Superseded(record.boot, record.addresses))
        else:
            # Of an earlier boot, or made by someone with the same key and boot: this node is the one that stays.
            self._refute(record.incarnation, source, now, outputs)

    def _take_claims_of_self(
        self, incarnations: Sequence[int], source: NodeId | None, now: float, outputs: list[Output]
    ) -> None:
        """Answer all that one frame says of this node at once."""
        believable = [each for each in incarnations if self._own.is_believable(each)]
        if len(believable) < len(incarnations):
            _blame(source, "an incarnation of this node that it cannot have had", outputs)
        if not believable:
            return
        if max(believable) >= self._own.record.incarnation:
            self._refute(max(believable), source, now, outputs)
        else:
            self._answer(source, outputs)

    def _take_claim(
        self, claim: Claim, entry: Entry, now: float, is_comparison: bool, changes: Changes
    ) -> Claim | None:
        """Take a claim about a member that is alive or suspect; return what goes on, `None` if it says nothing new."""
        node = claim.node
        is_first = entry.state is State.ALIVE and node not in changes and claim.accuser != self._me
        if is_first and not self._turnover.accuses(node, now):
            self._conduct.refused["claims_too_often"] += 1
            return None
        if claim.state == "failed":
            before = changes.get(node, entry)
            is_hasty = is_comparison or (self._is_connected(node) and not self._standings.had_time(node, now))
            if not is_hasty or before is None or not before.is_alive:
                changes.setdefault(node, entry)
                self._table.put(entry.as_state(State.FAILED))
                self._standings.gone(node, State.FAILED, now - _believed_age_s(claim, before))
                return claim
            claim = Claim(node, claim.incarnation, "suspect", claim.accuser)
        elif claim.state != "suspect" or claim.accuser == self._me:
            # What this node accused itself is known better here: it may have seen a sign of life since.
            return None
        if entry.state is State.SUSPECT:
            return claim if self._standings.confirmed(node, claim.accuser, self._table.alive_count) else None
        changes.setdefault(node, entry)
        self._begin_suspicion(entry, claim.accuser, now)
        return claim

    # --- what this node found itself ---

    def suspect(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        """It answered neither this node nor its helpers: accuse it."""
        entry = self._table.get(node)
        if entry is None or not entry.is_alive or node == self._me:
            return
        changes: Changes = {}
        if entry.state is State.ALIVE:
            changes[node] = entry
            self._begin_suspicion(entry, self._me, now)
        elif not self._standings.confirmed(node, self._me, self._table.alive_count):
            return
        self._tell(None, (), (Claim(node, entry.incarnation, "suspect", self._me),), changes, outputs)

    def alive_seen(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        """It gave a sign of life: stop accusing it, and tell it what others say, which only it can refute."""
        entry = self._table.get(node)
        if entry is None or entry.state is State.ALIVE or node == self._me:
            return
        outputs.append(SendFrame(node, Update(claims=self.claims_about(node, now))))
        if entry.state is State.SUSPECT and self._standings.withdrawn(node, self._me):
            self._table.put(entry.as_state(State.ALIVE))
            self._tell(None, (), (), {node: entry}, outputs)

    def connected(self, node: NodeId, boot: int, now: float, outputs: list[Output]) -> None:
        """A session with this boot of it is open: if it is not alive here, tell it, so that it refutes."""
        if node == self._me:
            return
        claims = self.claims_about(node, now)
        if claims:
            outputs.append(SendFrame(node, Update(claims=claims)))

    def claims_about(self, node: NodeId, now: float) -> tuple[Claim, ...]:
        """Return what to tell of a member beside its record; nothing where it is alive or unknown."""
        entry = self._table.get(node)
        if entry is None or entry.state is State.ALIVE or node == self._me:
            return ()
        if entry.state is State.SUSPECT:
            return tuple(
                [Claim(node, entry.incarnation, "suspect", accuser) for accuser in self._standings.accusers(node)]
            )
        age_s = max(0, int(now - self._standings.since(node)))
        return (Claim(node, entry.incarnation, entry.state.value, self._me, age_s),)

    def expel(self, node: NodeId) -> None:
        """Forget a member at once; nothing happens where it is none."""
        if node in self._table:
            self._table.remove(node)
            self._standings.cleared(node)

    # --- time ---

    def next_timer(self) -> float:
        due = self._standings.next_timer()
        return due if due < self._refute_at else self._refute_at

    def tick(self, now: float, outputs: list[Output]) -> None:
        """End suspicions that nobody refuted, and forget who is gone for long."""
        changes: Changes = {}
        claims: list[Claim] = []
        if now >= self._refute_at:
            self._refute_at = math.inf
            if self._refuted >= self._own.record.incarnation:
                self._refute(self._refuted, None, now, outputs)
        for node in self._standings.due(now):
            entry = self._table.get(node)
            if entry is None or entry.state is State.ALIVE:
                continue
            members = self._table.alive_count
            if not self._standings.is_over(node, entry.state, now, members):
                if entry.state is State.SUSPECT:
                    self._standings.again(node, members)
            elif entry.state is State.SUSPECT:
                changes[node] = entry
                self._table.put(entry.as_state(State.FAILED))
                self._standings.gone(node, State.FAILED, now)
                claims.append(Claim(node, entry.incarnation, "failed", self._me))
            else:
                self._table.remove(node)
                self._standings.cleared(node)
                self._turnover.forget(node)
                outputs.append(MemberForgotten(node))
        # Not as news of its own: most nodes find this out at the same time, each by itself.
        self._tell(self._me, (), claims, changes, outputs)

    # --- helpers ---

    def _begin_suspicion(self, entry: Entry, accuser: NodeId, now: float) -> None:
        self._table.put(entry.as_state(State.SUSPECT))
        self._standings.suspected(entry.record.node, accuser, now, self._table.alive_count)

    def _tell(
        self,
        source: NodeId | None,
        records: Sequence[Signed],
        claims: Sequence[Claim],
        changes: Changes,
        outputs: list[Output],
    ) -> None:
        # The accused first: the link to it may end with what follows.
        outputs.extend(
            [SendFrame(claim.node, Update(claims=(claim,))) for claim in claims if self._is_connected(claim.node)]
        )
        if records or claims:
            outputs.append(NewsLearned(source, tuple(records), tuple(claims)))
        for node, before in changes.items():
            entry = self._table.get(node)
            if entry is not None:
                outputs.append(_change_of(entry, before))


def _front_of(signed: Signed) -> _Front | None:
    try:
        return _fronts.decode(signed.payload)
    except msgspec.MsgspecError:
        return None


def _change_of(entry: Entry, before: Entry | None) -> MemberChanged:
    record = entry.record
    if before is None:
        return MemberChanged(record.node, record.name, None, entry.state)
    has_moved = record is not before.record and (
        record.addresses != before.record.addresses or record.boot != before.record.boot
    )
    return MemberChanged(record.node, record.name, before.state, entry.state, has_moved)


def _believed_age_s(claim: Claim, before: Entry | None) -> int:
    """Return for how long a member has been gone, as far as a claim is to be believed.

    It is not signed: who lived here until now is kept for the whole time, since what is forgotten could be replayed.
    """
    return claim.age_s if before is None or not before.is_alive else 0


def _rank(record: MemberRecord, signed: Signed) -> tuple[int, bool, int, bytes]:
    """The higher counts. Only who has lost control of a key has two of one incarnation: all choose the same then."""
    return record.incarnation, record.left, record.boot, signed.payload


def _flaw(record: MemberRecord) -> str:
    """Return what no honest node says of itself; empty where it is fine."""
    if record.mode not in MODES:
        return f"a record with the mode {record.mode[:20]!r}"
    if len(record.addresses) > MAX_ADDRESSES or len(record.via) > MAX_VIA:
        return f"a record with {len(record.addresses)} addresses and {len(record.via)} nodes in between"
    if any(len(address) > MAX_ADDRESS_SIZE for address in record.addresses):
        return f"a record with an address of over {MAX_ADDRESS_SIZE} characters"
    if len(record.name.encode()) > MAX_NAME_SIZE:
        return f"a record with a name of {len(record.name.encode())} bytes"
    return ""


def _blame(source: NodeId | None, why: str, outputs: list[Output]) -> None:
    if source is not None:
        outputs.append(Misbehaved(source, why))
