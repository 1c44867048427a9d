"""The publisher: batches under construction, credit, the offline buffer, and its books. Pure.

Messages of one topic that are published in one turn of the event loop go out as one batch, in the order of the calls.
A batch stays open until `seal` encodes it: at the end of the turn when there is a connection with credit, otherwise
when there is one again. What is not sealed is bounded by the credit, and while disconnected by the offline buffer.

`published = accepted + Σ refused[reason] + dropped_while_disconnected + possibly_lost + in_flight + buffered`
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.client.open_batch import MESSAGE_COST, OpenBatch, SealedBatch
from quicbus.client.outgoing import CheckedTopics, Outgoing, Route
from quicbus.client.refusals import Refusals
from quicbus.wire.records import encode_publish_of

if TYPE_CHECKING:
    from quicbus.client.pacing import Pace
    from quicbus.wire.frames import Refused, Taken

__all__ = ["Publisher", "PublisherBooks"]


@dataclass(frozen=True, slots=True)
class PublisherBooks:
    """Counts of messages since the client began; the line in this module's docstring holds at any time."""

    published: int
    accepted: int
    refused: dict[str, int]
    dropped_while_disconnected: int
    possibly_lost: int
    in_flight: int
    buffered: int


class Publisher:
    """One for a client; `connected` and `disconnected` say when a session carries it."""

    def __init__(self, offline_buffer_size: int = limits.OFFLINE_BUFFER_SIZE) -> None:
        self._offline_buffer_size = offline_buffer_size
        self.room = offline_buffer_size
        """Bytes of records that may still be published before one has to wait."""
        self.turn_left = limits.YIELD_AFTER_MESSAGES
        """Messages that may still be published in this turn; 0 closes the short way of `append`."""
        self._turn_began_with = self.turn_left
        self.lone_turns = 0
        """How many of the last turns in which something was published had one message; whoever finds out that this turn
        has more sets it to 0."""
        self.max_message_size = limits.MAX_MESSAGE_SIZE
        self.refusals = Refusals()
        self.topics = CheckedTopics()
        self._known_routes = self.topics.known
        self.on_open: Callable[[], None] = lambda: None
        """Called by `append` for the first batch that waits: there will be something to seal."""
        self.on_paced: Callable[[float], None] = lambda seconds: None
        """Called when the rates of the broker make it wait: after so many seconds `new_turn`, and seal."""
        self._pace: Pace | None = None
        self._append_limit = limits.BATCH_TARGET_SIZE
        self._queue: deque[OpenBatch] = deque()
        self._opened = 0
        self._is_connected = False
        self._is_held = False
        self._is_shut = False
        self._credit = 0
        self._queued = 0
        self._sent_size = 0
        self._number = 0
        self._session_sent = 0
        self._session_accepted = 0
        self._session_refused = 0
        self._left_queue = 0
        self._accepted = 0
        self._dropped_while_disconnected = 0
        self._possibly_lost = 0

    # --- publishing

    def append(self, topic: str, payload: bytes | str) -> bool:
        """The short way: True when the message went into the open batch of its topic. False says nothing."""
        route = self._known_routes.get(topic)
        if route is None or type(payload) is not bytes:
            return False
        batch = route.newest
        if batch is None:
            return self._append_first(route, payload)
        cost = len(payload) + MESSAGE_COST
        if (
            not batch.is_plain
            or cost > batch.room
            or cost > self.room
            or self.turn_left <= 0
            or cost > self._append_limit
        ):
            return False
        following = batch.following
        if following is None:
            batch.following = [payload]
        else:
            following.append(payload)
        batch.room -= cost
        self.room -= cost
        self.turn_left -= 1
        return True

    def _append_first(self, route: Route, payload: bytes) -> bool:
        """Open a batch without headers and the like, for a topic that was checked before."""
        if self.turn_left <= 0 or not self.refusals.permitted.may_publish(route.topic):
            return False
        cost = len(payload) + MESSAGE_COST
        base_cost = route.base_cost
        if cost > self._append_limit or cost + base_cost > self.room:
            return False
        self._opened += 1
        queue = self._queue
        route.newest = batch = OpenBatch(route, payload, limits.BATCH_TARGET_SIZE - cost, self._opened, base_cost)
        queue.append(batch)
        self.room -= cost + base_cost
        self.turn_left -= 1
        if len(queue) == 1:
            self.on_open()
        return True

    def offer(self, message: Outgoing, now: float) -> bool:
        """Take a message; False when there is no room for it."""
        cost = len(message.data) + MESSAGE_COST
        if self._pace is not None and self._is_connected and not self._is_in_pace(cost, self._pace):
            return False
        route = message.route
        batch = route.newest
        if batch is not None and batch.takes(message, now):
            if not self._fits(cost):
                return False
            batch.largest = max(batch.largest, message.payload_size)
            batch.add(message.data)
        else:
            batch = OpenBatch.of(message, self._opened + 1, now)
            if not self._fits(cost + batch.base_cost):
                return False
            self._opened += 1
            self.room -= batch.base_cost
            self._queue.append(batch)
            route.newest = batch
        self.room -= cost
        self.turn_left -= 1
        return True

    def new_turn(self) -> None:
        self.turn_left = 0 if self._is_held or self._is_shut else limits.YIELD_AFTER_MESSAGES
        if self._pace is not None and self._is_connected:
            self._recount()
            self.turn_left = min(self.turn_left, max(0, self._pace.messages_left() - self.buffered))
        self._turn_began_with = self.turn_left

    def hold(self) -> None:
        """Somebody waits for room: nobody takes the short way past him, until `release`."""
        self._is_held = True
        self.turn_left = 0

    def release(self) -> None:
        self._is_held = False
        self.new_turn()

    def _fits(self, cost: int) -> bool:
        # A message larger than the whole offline buffer passes when nothing else is in it.
        return cost <= self.room or not (self._queue or self._is_connected) or self._fits_alone(cost)

    def _is_in_pace(self, cost: int, pace: Pace) -> bool:
        """Whether the rates of the broker allow one more message; if not, `on_paced` says when to ask again."""
        self._recount()
        if pace.messages_left() > self.buffered and (cost <= pace.size_left() - self._queued or self._fits_alone(cost)):
            return True
        self.on_paced(pace.wait(cost))
        return False

    def _fits_alone(self, cost: int) -> bool:
        """Whether it is a message over what may be sent in a second, and that much has gathered."""
        if self._pace is None or self._queue:
            return False
        return cost <= self._credit - self._sent_size and bool(self._pace.fitting((cost,), 0))

    # --- sending

    def seal(self, now: float) -> list[SealedBatch]:
        """Encode what the credit allows, oldest first."""
        sealed: list[SealedBatch] = []
        queue = self._queue
        published = self._turn_began_with - self.turn_left
        if published:
            self.lone_turns = self.lone_turns + 1 if published == 1 else 0
        while queue:
            batch = queue[0]
            if batch.deadline is not None and now >= batch.deadline:
                self._dropped_while_disconnected += batch.count
                self._leave_queue(batch)
                continue
            if not self._is_connected or self._sent_size + batch.cost > self._credit:
                break
            if self._pace is not None and not self._cut_to_pace(batch, self._pace):
                break
            self._leave_queue(batch)
            sealed.append(self._encode(batch, now))
        self._recount()
        return sealed

    def _cut_to_pace(self, batch: OpenBatch, pace: Pace) -> bool:
        """Leave in a batch, the oldest, what the rates of the broker allow now; tells whether that is anything."""
        sizes = [len(message) + MESSAGE_COST for message in batch.messages]
        count = pace.fitting(sizes, batch.base_cost)
        if not count:
            self.on_paced(pace.wait(batch.base_cost + sizes[0]))
            return False
        if count < len(sizes):
            rest = batch.cut(count)
            self._queue.insert(1, rest)
            if batch.route.newest is batch:
                batch.route.newest = rest
        return True

    def _encode(self, batch: OpenBatch, now: float) -> SealedBatch:
        self._number += 1
        expires_in_ms = 0
        if batch.deadline is not None:
            expires_in_ms = max(1, round((batch.deadline - now) * 1000))
        route = batch.route
        record = encode_publish_of(
            route.encoded,
            batch.first,
            batch.following,
            number=self._number,
            flags=batch.flags,
            reply_to=batch.reply_to,
            expires_in_ms=expires_in_ms,
        )
        self._sent_size += len(record)
        if self._pace is not None:
            self._pace.sent(batch.count, len(record))
        self._session_sent += batch.count
        self.refusals.track(self._number, route.topic, batch.largest)
        return SealedBatch(route.lane, record, self._number, batch.request)

    def _leave_queue(self, batch: OpenBatch) -> None:
        self._queue.popleft()
        self._left_queue += batch.count
        route = batch.route
        if route.newest is batch:
            route.newest = None

    def _recount(self) -> None:
        self._queued = queued = sum([batch.cost for batch in self._queue]) if self._queue else 0
        if self._is_connected:
            self.room = self._credit - self._sent_size - queued
            if self._pace is not None:
                self.room = min(self.room, self._pace.size_left() - queued)
        else:
            self.room = self._offline_buffer_size - queued

    # --- the session

    def connected(self, credit: int, max_message_size: int, pace: Pace | None = None) -> None:
        """A session carries the publisher from here on; its batches are numbered from 1."""
        self._is_connected = True
        self._pace = pace
        self._credit = credit
        self._sent_size = self._number = 0
        self._session_sent = self._session_accepted = self._session_refused = 0
        self.max_message_size = max_message_size
        self._append_limit = min(limits.BATCH_TARGET_SIZE, max_message_size + MESSAGE_COST)
        self.refusals.new_session()
        self._refuse_too_large()
        self._recount()

    def pause(self) -> None:
        """The session takes nothing more (it goes away), but still tells what became of what it has."""
        self._is_connected = False
        self._recount()

    def disconnected(self) -> list[int]:
        """The session is gone: what it had not told of is possibly lost. Returns the requests that were not sent."""
        lost = self.in_flight
        self._possibly_lost += lost
        self.refusals.lost(lost)
        self._accepted += self._session_accepted
        self._session_sent = self._session_accepted = self._session_refused = 0
        self._is_connected = False
        requests = [batch.request for batch in self._queue if batch.request]
        if requests:  # their reply topics died with the session
            self._drop([batch for batch in self._queue if batch.request])
        self._recount()
        return requests

    def taken(self, frame: Taken) -> None:
        self._session_accepted = frame.accepted
        self._credit = max(self._credit, frame.credit)
        self._recount()

    def refused(self, frame: Refused) -> str:
        """Count it; returns the topic, empty where it is not known."""
        self._session_refused += frame.messages
        return self.refusals.add(frame)

    def shut(self) -> int:
        """The client ends: what is buffered will not be sent, and `append` takes nothing more. Returns how many."""
        before = self._dropped_while_disconnected
        self._is_shut = True
        self.new_turn()
        self._drop(list(self._queue))
        self._recount()
        return self._dropped_while_disconnected - before

    def _drop(self, batches: list[OpenBatch]) -> None:
        for batch in batches:
            self._dropped_while_disconnected += batch.count
        self._remove(batches)

    def _refuse_too_large(self) -> None:
        """Another broker may take less than the one before."""
        too_large = [batch for batch in self._queue if batch.largest_payload() > self.max_message_size]
        for batch in too_large:
            self.refusals.refuse_here(batch.route.topic, batch.largest_payload(), batch.count)
        self._remove(too_large)

    def _remove(self, batches: list[OpenBatch]) -> None:
        gone = set(map(id, batches))
        self._left_queue += sum([batch.count for batch in batches])
        self._queue = deque(batch for batch in self._queue if id(batch) not in gone)
        for batch in batches:
            if batch.route.newest is batch:
                batch.route.newest = None

    # --- flushing and books

    @property
    def in_flight(self) -> int:
        """Messages that were sent and of which the broker has not told yet."""
        return self._session_sent - self._session_accepted - self._session_refused

    @property
    def buffered(self) -> int:
        return sum([batch.count for batch in self._queue])

    @property
    def is_settled(self) -> bool:
        """Nothing is buffered and nothing in flight."""
        return not self._queue and not self.in_flight

    @property
    def batches_sent(self) -> int:
        """In this session."""
        return self._number

    def mark(self) -> int:
        """Return a mark behind all that was published; `is_sealed` tells when all before it was sent or dropped."""
        return self._opened

    def is_sealed(self, mark: int) -> bool:
        return not self._queue or self._queue[0].index > mark

    def books(self) -> PublisherBooks:
        buffered = self.buffered
        return PublisherBooks(
            published=self._left_queue + buffered,
            accepted=self._accepted + self._session_accepted,
            refused=dict(self.refusals.counts),
            dropped_while_disconnected=self._dropped_while_disconnected,
            possibly_lost=self._possibly_lost,
            in_flight=self.in_flight,
            buffered=buffered,
        )
