"""Every attack, a few hundred packets of it: the good pair loses nothing, the broker counts it and keeps none of it.

`make abuse` runs the same attacks with full strength and measures. Nothing here depends on how fast anything is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.abuse.arena import Arena
from tests.abuse.attackers import ATTACKS
from tests.abuse.verdict import RESIDENT_GROWTH, after_small

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sends from many addresses of 127.0.0.0/8")

OPTIONS = (
    "--retry",
    "always",
    "--handshake-timeout-s",
    "1.5",
    "--max-message-size",
    "1000",
    "--max-subscriptions",
    "100",
)
"""What is counted must not depend on how many others are connecting."""


@pytest.mark.timeout(300)  # all attacks one after the other, on a machine that may be busy with other things
def test_no_attack_costs_good_clients_anything_or_leaves_anything_behind(engine: str, tmp_path: Path) -> None:
    """One broker for all attacks on an engine: what one of them leaves behind meets the next."""
    with Arena(engine, OPTIONS, data_dir=tmp_path / "data", rate=50.0) as arena:
        before = arena.resident()
        found = {name: after_small(arena.attack(name, is_small=True), attack) for name, attack in ATTACKS.items()}
        assert not any(found.values()), {name: complaints for name, complaints in found.items() if complaints}
        arena.settle()
        assert arena.left_over() == {}
        assert arena.resident() - before < RESIDENT_GROWTH
        ended = arena.broker.stop()
    assert ended.code == 0
    assert "Traceback" not in ended.stderr
