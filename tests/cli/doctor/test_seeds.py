"""Whether the nodes that a broker on this machine dials are reached from here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import Authority
from quicbus_broker.mesh.outputs import State as MemberState
from quicbus_broker.mesh.views import MemberView
from quicbus_broker.remembered import MEMBERS_FILE, RememberedMembers
from quicbus_cli.doctor.finding import State
from quicbus_cli.doctor.seeds import check_seeds, reach, reach_all, read_members
from tests.cli.doctor.listeners import quic_listener, silent, unused

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.transport.connection import Address

LONG_S = 20.0
SHORT_S = 0.1
MESH = "0f" * 16


def text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


async def test_a_seed_is_reached_or_the_reason_is_told(engine: str) -> None:
    dead = text(unused())
    async with quic_listener(engine, Authority.create()) as address:
        alive = text(address)
        reached = await reach_all({"here": [dead, alive], "gone": [dead]}, LONG_S)
    assert reached == {"here": "", "gone": "connection refused"}
    with silent() as quiet:
        assert await reach(text(quiet), SHORT_S) == "nothing came back"
    assert await reach("not an address", SHORT_S) == "it is no HOST:PORT"
    assert await reach_all({"nowhere": []}, SHORT_S) == {"nowhere": "no address is known"}


@pytest.mark.parametrize(
    ("reached", "are_needed", "state"),
    [
        ({}, True, State.SKIPPED),
        ({"a:1": "", "b:2": ""}, True, State.OK),
        ({"a:1": "", "b:2": "nothing came back"}, True, State.WARNING),
        ({"a:1": "nothing came back"}, True, State.FAILURE),
        ({"a:1": "nothing came back"}, False, State.WARNING),
    ],
)
def test_one_seed_that_answers_is_enough(reached: dict[str, str], are_needed: bool, state: State) -> None:
    finding = check_seeds("seeds", reached, are_needed=are_needed)
    assert finding.state is state
    if state in (State.WARNING, State.FAILURE):
        assert "nothing came back" in finding.seen


def test_members_are_read_as_a_broker_wrote_them(tmp_path: Path) -> None:
    view = MemberView(
        node=b"\x0b" * 16,
        name="osaka",
        addresses=("127.0.0.1:4433",),
        mode="hybrid",
        boot=1,
        state=MemberState.ALIVE,
        is_me=False,
        is_linked=True,
        rtt_s=None,
    )
    RememberedMembers(tmp_path / MEMBERS_FILE, me=bytes(16), mesh=MESH).save([view])
    assert read_members(tmp_path, MESH) == ({"osaka 0b0b0b0b": ["127.0.0.1:4433"]}, "")
    assert read_members(tmp_path, "0e" * 16) == ({}, "")


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"mesh": MESH, "members": [{}]})])
def test_a_damaged_file_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / MEMBERS_FILE).write_text(content)
    members, why = read_members(tmp_path, MESH)
    assert members == {}
    assert "damaged" in why


def test_no_file_remembers_nobody(tmp_path: Path) -> None:
    assert read_members(tmp_path, MESH) == ({}, "")
