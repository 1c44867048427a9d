"""`quicbus doctor` from end to end: its report, its exit code, and that it leaves everything as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click import unstyle

from quicbus.testing.launcher import run_quicbus
from quicbus_cli.doctor.command import report, shown
from quicbus_cli.doctor.examination import Section
from quicbus_cli.doctor.finding import failure, ok, skipped, warning
from tests.cli.commands import quicbus
from tests.cli.doctor.listeners import unused

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.testing.launcher import BrokerProcess

SECTIONS = [
    Section("here", [ok("one", "fine"), warning("another one", "slow", "hurry")]),
    Section("there", [failure("third", "broken", "mend it"), skipped("last", "too dark")]),
]


def test_the_report_has_a_line_a_finding_and_its_remedy_beneath() -> None:
    assert [unstyle(line) for line in shown(SECTIONS)] == [
        "here",
        "  ok       one          fine",
        "  warning  another one  slow",
        "                        -> hurry",
        "there",
        "  failure  third        broken",
        "                        -> mend it",
        "  skipped  last         too dark",
        "1 failed, 1 warnings, 1 skipped, 1 ok",
    ]


def test_what_a_peer_said_moves_no_cursor() -> None:
    lines = list(shown([Section("there", [failure("TLS", "closed: \x1b[2J\nok", "look")])]))
    assert unstyle(lines[1]) == r"  failure  TLS  closed: \x1b[2J\nok"


def test_the_worst_finding_is_the_state_of_all() -> None:
    assert report(SECTIONS)["state"] == "failure"
    assert report(SECTIONS[:1])["state"] == "warning"
    assert report(SECTIONS)["findings"][2] == {
        "section": "there",
        "check": "third",
        "state": "failure",
        "seen": "broken",
        "remedy": "mend it",
    }


def test_a_broker_on_this_machine_is_well_and_stays_as_it_was(shared_broker: BrokerProcess) -> None:
    def content() -> list[tuple[str, bytes]]:
        return [(path.name, path.read_bytes()) for path in sorted(shared_broker.data_dir.iterdir())]

    before = content()
    ended = quicbus(shared_broker, "doctor", "--json")
    assert ended.code == 0, ended.stdout + ended.stderr
    told = json.loads(ended.stdout)
    failed = [one for one in told["findings"] if one["state"] == "failure"]
    assert not failed
    sections = list(dict.fromkeys(one["section"] for one in told["findings"]))
    assert sections == ["this machine", "broker on this machine", "credential", shared_broker.url]
    checks = {one["check"]: one for one in told["findings"] if one["section"] == shared_broker.url}
    assert checks["mesh"]["state"] == checks["clocks"]["state"] == "ok"
    assert content() == before


def test_a_machine_without_anything_is_told_what_to_begin_with(tmp_path: Path) -> None:
    host, port = unused()
    environment = {"QUICBUS_DATA_DIR": str(tmp_path / "none"), "QUICBUS_URL": f"quic://{host}:{port}"}
    ended = run_quicbus("doctor", environment=environment, cwd=tmp_path)
    assert ended.code == 1, ended.stderr
    assert "`quicbus broker` on this machine makes it" in ended.stdout
    assert "nobody listens on this port" in ended.stdout
    assert "-> start the broker there" in ended.stdout
    assert not (tmp_path / "none").exists()


def test_settings_that_stop_a_broker_are_a_finding(tmp_path: Path) -> None:
    (tmp_path / "quicbus.toml").write_text('mode = "nonsense"\n')
    host, port = unused()
    environment = {"QUICBUS_DATA_DIR": str(tmp_path / "none")}
    ended = run_quicbus("doctor", f"quic://{host}:{port}", environment=environment, cwd=tmp_path)
    assert ended.code == 1, ended.stderr
    assert "a broker would not start: mode" in ended.stdout


def test_something_that_is_no_url_is_wrong_usage(tmp_path: Path) -> None:
    ended = run_quicbus("doctor", "localhost:4433", cwd=tmp_path)
    assert ended.code == 2
    assert "'localhost:4433' is not a URL" in ended.stderr
