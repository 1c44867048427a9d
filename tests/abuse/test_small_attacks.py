"""Every attack, a few hundred packets of it: the good pair loses nothing, the broker counts it and keeps none of it.

`make abuse` runs the same attacks with full strength and measures. Nothing here depends on how fast anything is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.abuse.arena import Arena
from tests.abuse.attackers import ATTACKS
from tests.conftest import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sends from many addresses of 127.0.0.0/8")

OPTIONS = ("--retry", "always", "--handshake-timeout-s", "1.5", "--max-message-size", "1000")
"""What is counted must not depend on how many others are connecting."""


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(f"abuse-{name}")) for name in ENGINES]
)
def arena(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """One broker for all attacks on an engine: what one of them leaves behind meets the next."""
    folder = tmp_path_factory.mktemp("abuse") / "data"
    with Arena(request.param, OPTIONS, data_dir=folder) as arena:
        before = arena.resident()
        yield arena
        arena.settle()
        assert arena.left_over() == {}
        assert arena.resident() - before < 48 * 1024 * 1024
        ended = arena.broker.stop()
        assert ended.code == 0
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_costs_good_clients_nothing_and_leaves_nothing_behind(arena: Arena, name: str) -> None:
    attack = ATTACKS[name]
    outcome = arena.attack(name, is_small=True)
    assert outcome.made == attack.made
    assert {counter: outcome.counted.get(counter, 0) for counter in attack.counted} == attack.counted
    assert outcome.lost == 0
    assert outcome.attacked.published > 0
    assert outcome.attacked.reconnects == 0
    assert "transport.handler_errors" not in outcome.counted
