"""Back-pressure between nodes: asked over the connection to the origin, granted once, over with the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.wire.node_frames import Pause, Resume
from quicbus_broker.mesh.messages import pauses
from quicbus_broker.mesh.messages.pauses import PAUSE_MAX_S, PAUSE_TIMEOUT_S, Pauses
from quicbus_broker.mesh.outputs import PauseChanged, SendFrame

if TYPE_CHECKING:
    import pytest

    from quicbus_broker.mesh.outputs import Output

NODE, OTHER = b"n" * 16, b"o" * 16


def test_asking_sends_a_frame_and_is_said_again_over_a_new_connection() -> None:
    machine = Pauses()
    outputs: list[Output] = []
    machine.want(NODE, "a/#", True, outputs)
    machine.connected(NODE, outputs)
    machine.connected(OTHER, outputs)
    assert outputs == [SendFrame(NODE, Pause(filter="a/#")), SendFrame(NODE, Pause(filter="a/#"))]


def test_what_was_let_go_is_not_said_again() -> None:
    machine = Pauses()
    outputs: list[Output] = []
    machine.want(NODE, "a/#", True, outputs)
    machine.want(NODE, "a/#", False, outputs)
    del outputs[:1]
    machine.connected(NODE, outputs)
    assert outputs == [SendFrame(NODE, Resume(filter="a/#"))]


def test_letting_go_of_what_was_never_held_is_harmless() -> None:
    machine = Pauses()
    machine.want(NODE, "a/#", False, [])
    machine.on_resume(NODE, Resume(filter="a/#"), 0.0, [])
    assert not machine.wanted


def test_a_pause_holds_once_and_a_resume_lets_go_once() -> None:
    machine = Pauses()
    outputs: list[Output] = []
    for _ in range(2):
        machine.on_pause(NODE, Pause(filter="a"), 0.0, outputs)
    for _ in range(2):
        machine.on_resume(NODE, Resume(filter="a"), 0.0, outputs)
    assert outputs == [PauseChanged(NODE, "a", True), PauseChanged(NODE, "a", False)]


def test_a_node_that_is_gone_holds_nobody() -> None:
    machine = Pauses()
    machine.on_pause(NODE, Pause(filter="a"), 0.0, [])
    machine.on_pause(OTHER, Pause(filter="a"), 0.0, [])
    outputs: list[Output] = []
    machine.gone(NODE, outputs)
    machine.gone(NODE, outputs)
    assert outputs == [PauseChanged(NODE, "a", False)]


def test_one_node_may_hold_so_many_filters_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "MAX_PAUSES", 2)
    machine = Pauses()
    outputs: list[Output] = []
    for number in range(4):
        machine.on_pause(NODE, Pause(filter=f"a/{number}"), 0.0, outputs)
    assert len(outputs) == 2


def test_a_pause_needs_an_interest_that_blocks() -> None:
    wanted = {"a/#": None}
    machine = Pauses(lambda node, filter: node == NODE and filter in wanted)
    outputs: list[Output] = []
    machine.on_pause(NODE, Pause(filter="b"), 0.0, outputs)
    machine.on_pause(OTHER, Pause(filter="a/#"), 0.0, outputs)
    assert outputs == []
    assert machine.dropped == {"pause_without_interest": 2}
    machine.on_pause(NODE, Pause(filter="a/#"), 0.0, outputs)
    wanted.clear()
    machine.on_pause(NODE, Pause(filter="a/#"), 1.0, outputs)
    assert outputs == [PauseChanged(NODE, "a/#", True), PauseChanged(NODE, "a/#", False)]


def test_a_pause_that_is_not_said_again_is_over() -> None:
    machine = Pauses()
    outputs: list[Output] = []
    for filter in ("a", "b"):
        machine.on_pause(NODE, Pause(filter=filter), 0.0, outputs)
    outputs.clear()
    machine.on_pause(NODE, Pause(filter="b"), 50.0, outputs)
    machine.sweep(PAUSE_TIMEOUT_S, outputs)
    assert outputs == []
    machine.sweep(PAUSE_TIMEOUT_S + 1, outputs)
    assert outputs == [PauseChanged(NODE, "a", False)]


def test_a_pause_that_nothing_interrupts_ends_until_there_is_a_resume() -> None:
    machine = Pauses()
    outputs: list[Output] = []
    for now in range(0, int(PAUSE_MAX_S) + 100, 20):
        machine.on_pause(NODE, Pause(filter="a"), now, outputs)
        machine.sweep(now, outputs)
    assert outputs == [PauseChanged(NODE, "a", True), PauseChanged(NODE, "a", False)]
    assert machine.dropped == {"pause_too_long": 1}
    machine.on_resume(NODE, Resume(filter="a"), PAUSE_MAX_S + 100, outputs)
    machine.on_pause(NODE, Pause(filter="a"), PAUSE_MAX_S + 100, outputs)
    machine.gone(NODE, outputs)
    assert outputs[2:] == [PauseChanged(NODE, "a", True), PauseChanged(NODE, "a", False)]


def test_what_this_node_needs_is_said_again_before_it_is_over() -> None:
    machine = Pauses()
    outputs: list[Output] = []
    machine.want(NODE, "a", True, outputs)
    for now in range(0, 61, 5):
        machine.sweep(float(now), outputs)
    assert outputs == [SendFrame(NODE, Pause(filter="a"))] * (1 + 4)
    assert PAUSE_TIMEOUT_S > 60 / 4 + 15


def test_paused_filters_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_INTEREST_SIZE", 10)
    machine = Pauses()
    outputs: list[Output] = []
    for filter in ("123456", "12345", "1234", "1"):
        machine.on_pause(NODE, Pause(filter=filter), 0.0, outputs)
    assert [each.filter for each in outputs if isinstance(each, PauseChanged)] == ["123456", "1234"]
    machine.on_resume(NODE, Resume(filter="1234"), 0.0, outputs)
    machine.on_pause(NODE, Pause(filter="1"), 0.0, outputs)
    assert outputs[-1] == PauseChanged(NODE, "1", True)
