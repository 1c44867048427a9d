"""What one client publishes: its lanes, its credit, what is taken and what is refused."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from quicbus import limits
from quicbus.exceptions import InvalidTopic, ProtocolViolation
from quicbus.topics import check_topic
from quicbus.wire.batch import FLAG_HEADERS, FLAG_REQUEST, Body, parse_body, peek_body
from quicbus.wire.frames import Flushed, NoResponder, Refused, Taken
from quicbus.wire.records import KIND_MESSAGE, KIND_PUBLISH, RECORD_OVERHEAD, Oversize, Record, RecordParser
from quicbus_broker.edge.numbers import BatchNumbers
from quicbus_broker.edge.rate import PublishRates
from quicbus_broker.permissions import Action

if TYPE_CHECKING:
    from quicbus.transport.connection import Connection
    from quicbus.wire.frames import Flush
    from quicbus_broker.edge.control import ControlStream
    from quicbus_broker.edge.edge_limits import EdgeLimits
    from quicbus_broker.edge.exchange import Exchange
    from quicbus_broker.edge.intake import Work
    from quicbus_broker.edge.permissions import Permissions
    from quicbus_broker.routing import Source
    from quicbus_broker.routing.table import Plan, Planning

__all__ = ["Publisher", "TooManyOversize"]

_MAX_FLUSHES: Final = 1024
"""Unanswered Flush frames of one client."""
_SMALLEST_RECORD: Final = 32
"""5 bytes of record, 25 of body, a topic, a size: what bounds the batches in one window."""


class TooManyOversize(Exception):
    """The client sends oversize messages although it was told the limit; its connection is to be closed."""


class Publisher:
    """One session's publishing side. `accepted` and `refused` count messages. A `routing.Source`."""

    def __init__(
        self,
        connection: Connection,
        control: ControlStream,
        exchange: Exchange,
        edge_limits: EdgeLimits,
        *,
        name: str,
        permissions: Permissions,
    ) -> None:
        self.name = name
        self.accepted = 0
        self.refused = 0
        self.window = edge_limits.publish_window
        self.credit = self.window
        """Bytes of records that the client may send in all, as it will be told or was."""
        self.numbers = BatchNumbers(self.window // _SMALLEST_RECORD)
        self._connection = connection
        self._control = control
        self._exchange = exchange
        self._limits = edge_limits
        self._permissions = permissions
        self._parsers: dict[int, RecordParser] = {}
        self._received = 0
        self._held = 0
        self._oversize = 0
        self._told = (0, 0, self.credit)
        self._flushes: list[Flush] = []
        self.waiting = 0
        """Bytes of the lanes that have arrived and are not parsed yet: they give no credit."""
        self._is_dirty = False
        self._rates = PublishRates.of(edge_limits, exchange.clock())
        self._is_delayed = False
        self._in_work: int | None = None
        """The number of a batch that has begun to be dealt with."""

    @property
    def taken_up_to(self) -> int:
        """All batches up to this number were dealt with."""
        number = self.numbers.all_up_to
        return number if self._in_work is None else min(number, self._in_work - 1)

    @property
    def holds_partial(self) -> bool:
        """Whether a record has begun to arrive, and is not complete or not dealt with."""
        return self._held > 0 or self.waiting > 0

    def open_lane(self, stream_id: int) -> None:
        """The client opened a lane; raises `ProtocolViolation` for one too many."""
        if len(self._parsers) >= limits.LANES:
            raise ProtocolViolation(f"more than {limits.LANES} lanes")
        self._parsers[stream_id] = RecordParser(self._limits.max_record_size)

    def arrived(self, size: int) -> None:
        """So many bytes of a lane have come; raises `ProtocolViolation` for more than the credit."""
        if not self._is_dirty:
            self._is_dirty = True
            self._connection.transmit_soon()
        self._received += size
        if self._received > self.credit:
            raise ProtocolViolation(f"{self._received} bytes on the lanes, with credit for {self.credit}")

    def records(self, stream_id: int, data: bytes) -> list[Record | Oversize]:
        """Return what is complete with these bytes of a lane, each for `take`. Raises `ProtocolViolation`."""
        parser = self._parsers[stream_id]
        self._held -= parser.held
        records = parser.feed(data)
        self._held += parser.held
        return records

    def take(self, record: Record | Oversize) -> Work | None:
        """Deal with a record, or return what is left to do. Raises `ProtocolViolation` and `TooManyOversize`."""
        if type(record) is Record:
            if record.kind == KIND_PUBLISH:
                return self._on_publish(record.payload)
            if record.kind == KIND_MESSAGE:
                raise ProtocolViolation("a Message record towards the broker")
        elif record.kind == KIND_PUBLISH:
            self._on_oversize(record)
        return None

    def lane_ended(self, stream_id: int) -> None:
        """The client ended a lane; raises `ProtocolViolation` in the middle of a record."""
        if self._parsers[stream_id].held:
            raise ProtocolViolation("a lane ended in the middle of a record")

    def flush(self, frame: Flush) -> None:
        """Answer once the batches are dealt with."""
        if len(self._flushes) >= _MAX_FLUSHES:
            raise ProtocolViolation(f"more than {_MAX_FLUSHES} unanswered Flush frames")
        self._flushes.append(frame)
        self._connection.transmit_soon()

    def narrowed(self, filter: str) -> Source:
        """A client has one credit, whatever it publishes to."""
        return self

    def held(self) -> None:
        """A subscription holds this publisher back: `before_transmit` asks for it."""

    def released(self) -> None:
        """No subscription holds this publisher back any longer."""
        self._connection.transmit_soon()

    def delay_over(self) -> None:
        """What it published too fast is paid off."""
        self._is_delayed = False
        self._connection.transmit_soon()

    def before_transmit(self) -> None:
        """Raise the credit unless the client is held back; tell what was taken if it waits for that, else later."""
        self._is_dirty = False
        is_too_fast = self._rates is not None and self._is_too_fast(self._rates)
        if not is_too_fast and not self._exchange.router.is_held(self):
            self.credit = max(self.credit, self._received - self._held - self.waiting + self.window)
        accepted, refused, credit = self._told
        if self._flushes or self.refused != refused or self.credit - credit >= self.window // 4:
            self.tell()
        elif self.accepted != accepted or self.credit != credit:
            self._exchange.tell_later(self)
        if self._flushes:
            self._answer_flushes()

    def tell(self) -> None:
        """Tell the client what was taken, unless it knows."""
        state = (self.accepted, self.refused, self.credit)
        if state != self._told:
            self._told = state
            self._control.write(Taken(accepted=self.accepted, refused=self.refused, credit=self.credit))

    def _on_publish(self, payload: bytes) -> Work | None:
        body = parse_body(payload)
        self.numbers.add(body.number)
        if body.largest > self._limits.max_message_size and self._refuse_oversize(body):
            return None
        if self._rates is not None and self._refuse_too_fast(body, len(payload), self._rates):
            return None
        router = self._exchange.router
        plan = router.known_plan(body.topic)
        try:
            if plan is None:
                planning = router.begin_plan(body.topic)
            if body.reply_to:
                _check_reply_topic(body.reply_to)
        except InvalidTopic as error:
            self._refuse(body.number, body.count, "invalid_topic", str(error))
            return None
        if plan is None:
            return self._plan(body, planning)
        self._publish(body, plan)
        return None

    def _plan(self, body: Body, planning: Planning) -> Work | None:
        """Find out who gets a batch; whatever comes after it waits for that."""
        plan = planning.go_on()
        if plan is None:
            self._in_work = body.number
            return partial(self._plan, body, planning)
        self._in_work = None
        self._publish(body, plan)
        return None

    def _publish(self, body: Body, plan: Plan) -> None:
        if not self._permissions.may_publish(body.topic):
            self._refuse_not_permitted(body, "not_permitted", body.topic)
            return
        # Who answers publishes by his own permissions, which may be wider than those of who has him answer there.
        if body.reply_to and not self._permissions.may_publish(body.reply_to):
            self._refuse_not_permitted(body, "reply_not_permitted", body.reply_to)
            return
        self.accepted += body.count
        may_be_answered = self._exchange.publish(body, self.name, self, plan)
        if not may_be_answered and body.flags & FLAG_REQUEST:
            self._control.write(NoResponder(number=body.number))

    def _on_oversize(self, record: Oversize) -> None:
        count, number = peek_body(record.head)
        self.numbers.add(number)
        self._refuse_too_large(number, count, f"a batch of {record.size} bytes")

    def _refuse_oversize(self, body: Body) -> bool:
        largest = _largest_payload(body, self._limits.max_message_size)
        if largest <= self._limits.max_message_size:
            return False
        self._refuse_too_large(body.number, body.count, f"a message of {largest} bytes")
        return True

    def _is_too_fast(self, rates: PublishRates) -> bool:
        if not self._is_delayed:
            now = self._exchange.clock()
            delay, limit = rates.delay(now)
            if delay > 0:
                self._is_delayed = True
                self._exchange.limit_hits[limit] += 1
                self._exchange.delay(self, now + delay)
        return self._is_delayed

    def _refuse_too_fast(self, body: Body, size: int, rates: PublishRates) -> bool:
        excess = rates.admit(body.count, RECORD_OVERHEAD + size, self._exchange.clock())
        if excess is None:
            return False
        limit, current, allowed, retry_after_s = excess
        self._exchange.limit_hits[limit] += 1
        self.refused += body.count
        self._control.write(
            Refused(
                number=body.number,
                messages=body.count,
                reason="rate",
                detail=f"{limit}: {current} within a second are over the limit of {allowed}",
                retry_after_s=retry_after_s,
                limit=limit,
                current=current,
                allowed=allowed,
            )
        )
        return True

    def _refuse_too_large(self, number: int, messages: int, what: str) -> None:
        detail = f"{what}; max_message_size is {self._limits.max_message_size}"
        self._refuse(number, messages, "too_large", detail)
        self._exchange.limit_hits["max_message_size"] += 1
        self._oversize += 1
        if self._oversize > limits.MAX_REFUSED_OVERSIZE:
            raise TooManyOversize(detail)

    def _refuse_not_permitted(self, body: Body, reason: str, topic: bytes) -> None:
        subject = topic.decode()
        self._exchange.denials.add(self._permissions.who, Action.PUBLISH, subject)
        self._refuse(body.number, body.count, reason, subject[:200])

    def _refuse(self, number: int, messages: int, reason: str, detail: str) -> None:
        self.refused += messages
        self._control.write(Refused(number=number, messages=messages, reason=reason, detail=detail))

    def _answer_flushes(self) -> None:
        waiting: list[Flush] = []
        for flush in self._flushes:
            if flush.batches <= self.taken_up_to:
                self._control.write(Flushed(id=flush.id, accepted=self.accepted, refused=self.refused))
            else:
                waiting.append(flush)
        self._flushes = waiting


def _largest_payload(body: Body, limit: int) -> int:
    """Return the size of the largest payload; of messages over `limit` the headers are left out."""
    if not body.flags & FLAG_HEADERS:
        return body.largest
    largest = 0
    start = body.messages_start
    for size in body.sizes:
        if size > limit:
            headers = 2 + int.from_bytes(body.raw[start : start + 2], "little")
            if headers - 2 > limits.MAX_HEADERS_SIZE:
                return size
            largest = max(largest, size - headers)
        start += size
    return largest


def _check_reply_topic(reply_to: bytes) -> None:
    try:
        check_topic(reply_to.decode())
    except UnicodeDecodeError as error:
        raise InvalidTopic(repr(reply_to[:80]), "not UTF-8", error.start) from None
