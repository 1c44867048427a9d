"""What keeps `quicbus broker` from listening is told in one line that names the address."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from quicbus.testing.launcher import run_quicbus
from quicbus_broker import Broker, BrokerSettings

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = ["203.0.113.9:4433", "a..b:4433"]
"""An address of nobody (RFC 5737), and a name that none can have."""


@pytest.mark.parametrize("listen", ELSEWHERE)
def test_an_address_of_another_machine_is_named_with_the_remedy(listen: str, tmp_path: Path) -> None:
    ended = run_quicbus("broker", "--listen", listen, "--data-dir", str(tmp_path / "data"))
    assert ended.code == 1
    assert ended.stderr.startswith(f"quicbus: cannot listen at {listen}: ")
    assert "--listen" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("listen", ELSEWHERE)
async def test_an_embedded_broker_names_it_as_files_are_named(listen: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=re.escape(listen)) as caught:
        async with Broker(BrokerSettings(listen=listen, data_dir=tmp_path / "data")):
            pass
    assert caught.value.filename == listen
