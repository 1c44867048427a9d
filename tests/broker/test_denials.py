"""What clients may not do stands in the log, with the line that decides, and never fills it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.logs import logger_for
from quicbus_broker.edge.denials import Denials
from quicbus_broker.permissions import Action, Policy, read_table

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """\
[permissions]
default = "deny"

[[permissions.role]]
name = "sensor"
match = ["sensor-*"]
publish = ["sensors/${name}/#"]
deny_publish = ["sensors/+/raw"]
"""


class Denying:
    def __init__(self, folder: Path) -> None:
        path = folder / "quicbus.toml"
        path.write_text(TABLE)
        self.now = 100.0
        self.denials = Denials(Policy(read_table(path)), lambda: self.now, logger_for("quicbus_broker.edge", node="ab"))


@pytest.fixture
def denying(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Denying:
    caplog.set_level(logging.WARNING, "quicbus_broker.edge")
    return Denying(tmp_path)


def test_the_line_names_client_topic_and_what_decided(
    denying: Denying, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    denying.denials.add("sensor-7", Action.PUBLISH, "sensors/sensor-7/raw")
    denying.denials.add("sensor-7", Action.SUBSCRIBE, "orders/#")
    denying.denials.add("bob", Action.PUBLISH, "$quicbus/authority")
    file, none = tmp_path / "quicbus.toml", "and no subscribe filter there covers this filter"
    assert caplog.messages == [
        f"< sensor-7 may not publish sensors/sensor-7/raw: it matches what role sensor denies ({file}:8)",
        f"< sensor-7 may not subscribe orders/#: sensor-7 has the role sensor, {none} ({file}:4)",
        "< bob may not publish $quicbus/authority: topics below $quicbus/ are for the nodes themselves",
    ]


def test_who_tries_again_and_again_has_one_line_a_minute_with_how_often(
    denying: Denying, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(500):
        denying.denials.add("bob", Action.PUBLISH, "orders/1")
    assert len(caplog.records) == 1
    denying.now += limits.DENIAL_PAUSE_S
    denying.denials.add("bob", Action.PUBLISH, "orders/2")
    assert caplog.messages[1].endswith("; 499 more of this client since the last such line")
    assert denying.denials.count == 501


def test_many_clients_together_have_a_few_lines_and_later_ones_are_told_again(
    denying: Denying, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5000):
        denying.denials.add(f"client-{number}", Action.PUBLISH, "orders/1")
    assert len(caplog.records) == limits.REFUSAL_LINES
    denying.now += limits.REFUSAL_LINES_S
    denying.denials.add("client-4999", Action.PUBLISH, "orders/1")
    assert caplog.messages[-1].startswith("< client-4999 may not")
    assert denying.denials.count == 5001


def test_what_is_remembered_and_shown_is_bounded(denying: Denying, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(2 * limits.DENIAL_NAMES):
        denying.now += limits.REFUSAL_LINES_S
        denying.denials.add(f"client-{number}", Action.PUBLISH, "o" * 60_000)
    assert len(denying.denials._told) == limits.DENIAL_NAMES
    assert max(map(len, caplog.messages)) < 400
