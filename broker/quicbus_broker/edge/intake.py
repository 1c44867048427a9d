"""What one session has to deal with, in the order in which it came, a slice at a time. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from quicbus_broker.edge.turns import Turns, Waiter

__all__ = ["Input", "Intake", "Work"]


class Work(Protocol):
    """What is left to do of an item that takes long."""

    def __call__(self) -> Work | None:
        """Do a piece; returns what is left then. Raises what handling an item raises."""
        ...


class Input(NamedTuple):
    """Bytes of a stream, as they came."""

    stream_id: int
    data: bytes
    ended: bool


class _Cut(NamedTuple):
    """An input that was begun: the items that are left of it, and what handles them."""

    items: Iterator[Any]
    handle: Callable[[Any], Work | None]
    size: int
    is_control: bool
    work: Work | None
    """Of the item before these."""


class Intake:
    """A slice begins with the first work of a turn. Work that its end cuts off goes on in a later one.

    Who uses it `put`s what arrives while `waits`, and `deal`s with it at once otherwise.
    """

    __slots__ = ("_cut", "_end", "_inputs", "_is_closed", "_turns", "_waiter", "control_size", "lanes_size", "waits")

    def __init__(self, turns: Turns, waiter: Waiter) -> None:
        self.waits = False
        """Whether something is left over from before."""
        self.control_size = 0
        self.lanes_size = 0
        """Bytes that wait; an input that was begun counts until it is done."""
        self._turns = turns
        self._waiter: Waiter | None = waiter
        self._end: float | None = None
        self._cut: _Cut | None = None
        self._inputs: deque[Input] = deque()
        self._is_closed = False

    def turn_ended(self) -> None:
        """The next work begins a new slice."""
        self._end = None

    def deal(
        self,
        items: Iterable[Any],
        handle: Callable[[Any], Work | None],
        size: int,
        is_control: bool,
        work: Work | None = None,
    ) -> None:
        """Handle the items of an input of so many bytes, after `work`; at least a piece of it. What does not fit in
        this slice waits. Raises what `handle` raises, and then the rest of these items is lost."""
        end, clock = self._end, self._turns.clock
        if end is None:
            end = self._end = self._turns.slice_end()
        rest = iter(items)
        if work is not None:
            work = self._do(work, end)
            if work is not None or clock() >= end:
                self._keep(_Cut(rest, handle, size, is_control, work))
                return
        for item in rest:
            work = handle(item)
            if work is not None:
                work = self._do(work, end)
            if clock() >= end:
                self._keep(_Cut(rest, handle, size, is_control, work))
                return

    def put(self, source: Input, *, is_control: bool) -> None:
        """Keep an input for after what waits already."""
        self._inputs.append(source)
        self._count(len(source.data), is_control)
        self._wait()

    def go_on(self) -> None:
        """Deal with the rest of the input that was cut off."""
        cut, self._cut = self._cut, None
        if cut is not None:
            self._count(-cut.size, cut.is_control)
            self.deal(*cut)

    def next(self, control_id: int) -> Input | None:
        """Take the next input that was put; `None`: this slice is over, or nothing waits any more."""
        if self._cut is not None:
            return None
        if not self._inputs:
            self.waits = False
            return None
        if self._end is not None and self._turns.clock() >= self._end:
            return None
        source = self._inputs.popleft()
        self._count(-len(source.data), source.stream_id == control_id)
        return source

    def close(self) -> None:
        """Forget what waits, and who waits for it; nothing more comes."""
        self._is_closed = True
        self._waiter = None
        self._cut = None
        self._inputs.clear()
        self.waits = False
        self.control_size = self.lanes_size = 0

    def _do(self, work: Work | None, end: float) -> Work | None:
        """Do what fits in this slice, at least a piece; returns what is left."""
        clock = self._turns.clock
        while work is not None:
            work = work()
            if clock() >= end:
                break
        return work

    def _keep(self, cut: _Cut) -> None:
        if not self._is_closed:
            self._cut = cut
            self._count(cut.size, cut.is_control)
            self._wait()

    def _count(self, size: int, is_control: bool) -> None:
        if is_control:
            self.control_size += size
        else:
            self.lanes_size += size

    def _wait(self) -> None:
        if not self.waits and self._waiter is not None:
            self.waits = True
            self._turns.wait(self._waiter)
