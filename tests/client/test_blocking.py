"""The blocking client's threads: interrupts, closing, misuse. Its calls are tested end to end."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import quicbus
import quicbus.blocking as blocking
from tests.client.scripted_broker import ScriptedDialer, start

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def bus(dialer: ScriptedDialer) -> Iterator[blocking.Client]:
    thread = blocking._LoopThread("test")
    client = blocking.Client(thread, thread.run(start(dialer)))
    yield client
    client.close()
    assert "test" not in {thread.name for thread in threading.enumerate()}


def deliver(bus: blocking.Client, dialer: ScriptedDialer, *messages: bytes) -> None:
    async def call() -> None:
        dialer.broker.deliver(1, "a", list(messages))

    bus._thread.run(call())


def test_iterating_and_batches_give_what_arrives(bus: blocking.Client, dialer: ScriptedDialer) -> None:
    with bus.subscribe("a") as messages:
        deliver(bus, dialer, b"1", b"2", b"3")
        assert next(messages).payload == b"1"
        assert messages.pending == 2
        assert [message.payload for message in next(messages.batches())] == [b"2", b"3"]
    assert list(messages) == []


def test_an_interrupted_call_is_cancelled_and_takes_no_message(
    bus: blocking.Client, dialer: ScriptedDialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = bus.subscribe("a")
    messages.__enter__()
    schedule = asyncio.run_coroutine_threadsafe

    class Interrupted:
        """A future whose waiter is interrupted, as Ctrl-C does it."""

        def __init__(self, *args: Any) -> None:
            self.future = schedule(*args)

        def result(self) -> None:
            raise KeyboardInterrupt

        def cancel(self) -> None:
            self.future.cancel()

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "run_coroutine_threadsafe", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            messages.next()
    deliver(bus, dialer, b"1")
    assert messages.next(5).payload == b"1"


def test_closing_ends_iterations_in_other_threads_with_an_error(bus: blocking.Client) -> None:
    messages = bus.subscribe("a")
    messages.__enter__()
    caught: list[BaseException] = []

    def read() -> None:
        try:
            for _ in messages:
                pass
        except quicbus.QuicbusError as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    bus.close()
    reader.join(10)
    bus.close()
    assert not reader.is_alive()
    assert [type(error) for error in caught] == [quicbus.ClientClosed]
    assert bus.statistics().status is quicbus.Status.CLOSED


def test_events_end_with_the_client(bus: blocking.Client) -> None:
    events = bus.events()
    bus.close()
    assert [type(event) for event in events] == [quicbus.Disconnected, quicbus.Closed]


def test_a_blocking_call_in_the_clients_own_thread_is_refused(bus: blocking.Client) -> None:
    async def call() -> None:
        bus.publish("a", b"")

    with pytest.raises(RuntimeError):
        bus._thread.run(call())


def test_a_handler_is_called_in_a_thread_of_its_own(bus: blocking.Client, dialer: ScriptedDialer) -> None:
    called = threading.Event()
    names: list[str] = []

    @bus.on("a")
    def handle(message: blocking.Message) -> None:
        names.append(threading.current_thread().name)
        called.set()

    bus.wait_handlers()
    deliver(bus, dialer, b"x")
    assert called.wait(10)
    assert names[0] != "test"
    with pytest.raises(TypeError):

        @bus.on("b")
        async def wrong(message: blocking.Message) -> None: ...


def test_a_connect_that_fails_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(quicbus.CredentialError):
        blocking.connect("quic://127.0.0.1:1", credentials="does-not-exist.pem")
    assert threading.active_count() == before


def test_the_mesh_is_seen_as_by_the_other_client(bus: blocking.Client) -> None:
    assert [peer.name for peer in bus.peers(timeout=5)] == ["scripted"]
    with bus.subscribe("a") as messages:
        assert messages.wait_spread(5) == 0
