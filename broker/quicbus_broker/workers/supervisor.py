"""The process that starts the workers, passes signals on, and starts again who dies. No event loop and no threads."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from quicbus_broker.addresses import AdvertisedAddresses
from quicbus_broker.workers.child import ChildFailed, failure_of, fork
from quicbus_broker.workers.prepare import Prepared, prepare_workers
from quicbus_broker.workers.restarts import Restarts
from quicbus_broker.workers.seat import Seat, settings_of_worker
from quicbus_broker.workers.sockets import WorkerSockets
from quicbus_broker.workers.worker import run_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quicbus_broker.settings import BrokerSettings
    from quicbus_broker.workers.child import Channel, Child

__all__ = ["Supervisor", "run_workers"]

_ENDING = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger("quicbus_broker.workers")


def run_workers(
    settings: BrokerSettings,
    on_ready: Callable[[dict[str, Any], list[dict[str, Any]]], None],
    on_stopping: Callable[[], None],
) -> list[dict[str, Any]]:
    """Run all workers until SIGINT or SIGTERM; return what each told at its end. A second signal ends all at once.

    `on_ready` is called once, with the facts of the whole and of each worker. Call it from the main thread, without an
    event loop. Raises `ChildFailed` with what ended a worker, and `OSError` with the address as
    `filename` where it can't listen.
    """
    sockets = WorkerSockets.open(settings.listen, settings.workers)
    with contextlib.closing(sockets):
        prepared = _prepare(settings)
        return Supervisor(settings, prepared, sockets, on_ready, on_stopping).run()


def _prepare(settings: BrokerSettings) -> Prepared:
    """In a child, as joining takes an event loop."""

    def work(channel: Channel) -> int:
        made = prepare_workers(settings)
        channel.tell("prepared", nodes=[node.hex() for node in made.nodes], seed=made.seed, entered=made.entered)
        return 0

    told = fork(work).result()
    return Prepared(tuple(map(bytes.fromhex, told["nodes"])), tuple(told["seed"]), told["entered"])


class _Worker:
    """What is known of one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child | None = None
        self.facts: dict[str, Any] = {}
        self.stopped: dict[str, Any] = {}
        self.failed: dict[str, Any] = {}
        self.started_at = 0.0
        self.start_at: float | None = None
        self.restarts = Restarts()


class Supervisor:
    """`run` it once."""

    def __init__(
        self,
        settings: BrokerSettings,
        prepared: Prepared,
        sockets: WorkerSockets,
        on_ready: Callable[[dict[str, Any], list[dict[str, Any]]], None],
        on_stopping: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._prepared = prepared
        self._sockets = sockets
        self._on_ready = on_ready
        self._on_stopping = on_stopping
        self._retry_key = os.urandom(16)
        self._workers = [_Worker(number) for number in range(1, settings.workers + 1)]
        self._selector = selectors.DefaultSelector()
        self._is_ready = self._is_stopping = False
        self._failure: ChildFailed | None = None

    def run(self) -> list[dict[str, Any]]:
        with self._selector, self._signals() as wake:
            self._selector.register(wake, selectors.EVENT_READ)
            try:
                for worker in self._workers:
                    self._start(worker)
                while any(worker.child or worker.start_at is not None for worker in self._workers):
                    self._turn(wake)
            except BaseException:
                self._kill()
                raise
        if self._failure is not None:
            raise self._failure
        return [worker.stopped for worker in self._workers]

    def _turn(self, wake: socket.socket) -> None:
        for key, _ in self._selector.select(self._time_left()):
            if key.fileobj is wake:
                for number in wake.recv(4096):
                    self._on_signal(number)
            else:
                self._read(key.data)
        self._reap()
        now = time.monotonic()
        for worker in self._workers:
            if worker.start_at is not None and worker.start_at <= now:
                self._start(worker)

    def _time_left(self) -> float | None:
        due = [worker.start_at for worker in self._workers if worker.start_at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    # --- starting -----------------------------------------------------------------------------------------------------

    def _start(self, worker: _Worker) -> None:
        number, sockets = worker.number, self._sockets
        settings = settings_of_worker(self._settings, number, self._prepared.seed)
        seat = Seat(
            number=number,
            home=self._settings.folder,
            shared=sockets.shared[number - 1],
            own=sockets.own[number - 1],
            inboxes=tuple(sockets.inboxes),
            retry_key=self._retry_key,
            siblings=tuple(
                (node, sockets.own_address(at)) for at, node in enumerate(self._prepared.nodes, 1) if at != number
            ),
        )

        def work(channel: Channel) -> int:
            sockets.keep_only(number)
            for other in self._workers:
                if other.child is not None:
                    other.child.channel.close()
            self._selector.close()
            return run_worker(settings, seat, channel)

        worker.start_at, worker.started_at = None, time.monotonic()
        worker.child = fork(work)
        self._selector.register(worker.child.channel, selectors.EVENT_READ, worker)

    def _read(self, worker: _Worker) -> None:
        assert worker.child is not None
        told = worker.child.channel.read()
        if told is None:
            self._selector.unregister(worker.child.channel)
            return
        for line in told:
            event = line.pop("event")
            if event == "ready":
                worker.facts = {**line, "pid": worker.child.pid}
                self._tell_ready(worker)
            elif event == "stopped":
                worker.stopped = line
            else:
                worker.failed = {"event": event, **line}

    def _tell_ready(self, worker: _Worker) -> None:
        if self._is_ready:
            logger.warning("= worker %d is ready again (process %d)", worker.number, worker.facts["pid"])
        elif all(each.facts for each in self._workers):
            self._is_ready = True
            first = self._workers[0].facts
            shared = AdvertisedAddresses(self._settings, self._sockets.address).current()
            whole = {
                **first,
                "advertised": shared,
                "seeds": list(self._prepared.seed),
                "entered": self._prepared.entered,
            }
            self._on_ready(whole, [each.facts for each in self._workers])

    # --- ending -------------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        if number in _ENDING:
            if self._is_stopping:
                self._kill()
                os._exit(128 + number)
            self._on_stopping()
            self._stop()
        elif number == signal.SIGHUP:
            self._signal_all(signal.SIGHUP)

    def _stop(self) -> None:
        self._is_stopping = True
        for worker in self._workers:
            worker.start_at = None
        self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: int) -> None:
        for worker in self._workers:
            if worker.child is not None:
                worker.child.send_signal(number)

    def _kill(self) -> None:
        self._signal_all(signal.SIGKILL)

    def _reap(self) -> None:
        for worker in self._workers:
            child = worker.child
            if child is None:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            while child.channel in self._selector.get_map():  # what it told last
                self._read(worker)
            child.channel.close()
            worker.child = None
            self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        if worker.failed or (not self._is_ready and not self._is_stopping):
            sentence = f"worker {worker.number} {how} before all were ready"
            self._failure = self._failure or failure_of(worker.failed, sentence)
            if not self._is_stopping:
                self._stop()
        elif self._is_stopping:
            if code:
                self._failure = self._failure or ChildFailed(f"worker {worker.number} {how} while all were stopping")
        else:
            pause_s = worker.restarts.died(time.monotonic() - worker.started_at)
            worker.start_at = time.monotonic() + pause_s
            logger.error("= worker %d %s: it is started again in %g s", worker.number, how, pause_s)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Have the numbers of signals come out of a socket."""
        handled = (*_ENDING, signal.SIGHUP, signal.SIGCHLD)
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            there.setblocking(False)
            before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
            handlers = {number: signal.signal(number, lambda number, frame: None) for number in handled}
            try:
                yield here
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(before)
