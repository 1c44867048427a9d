"""Back-pressure between nodes: asked over the connection to the origin, granted once, over with the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.node_frames import Pause, Resume
from quicbus_broker.mesh.messages import pauses
from quicbus_broker.mesh.messages.pauses import Pauses
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
