"""Which line decides, and how the commands tell it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from quicbus_broker.permissions import Action
from quicbus_broker.permissions.explain import explain
from quicbus_broker.permissions.read_table import parse_table
from quicbus_cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """\
[permissions]
default = "deny"

[[permissions.role]]
name = "sensor"
match = ["sensor-*"]
publish = [
    "sensors/${name}/#",
    "events",
]
deny_publish = ["sensors/+/raw/#"]
[[permissions.role]]
name = "reader"
match = ["*-1"]
subscribe = ["sensors/#"]
deny_subscribe = ["sensors/secret"]
"""
TABLE = parse_table(TEXT, "q.toml")
REPLY = "$quicbus/reply/" + "0" * 32 + "/" + "1" * 32


@pytest.mark.parametrize(
    ("name", "action", "subject", "expected"),
    [
        ("sensor-1", "publish", "sensors/sensor-1/t", (True, "role sensor allows it", 8)),
        ("sensor-1", "publish", "sensors/sensor-1/raw/t", (False, "it matches what role sensor denies", 11)),
        (
            "sensor-1",
            "publish",
            "other",
            (False, "sensor-1 has the roles sensor, reader, and no publish filter there matches this topic", 4),
        ),
        ("box-1", "subscribe", "sensors/a/+", (True, "role reader allows it", 15)),
        ("box-1", "subscribe", "sensors/+", (False, "it overlaps what role reader denies", 16)),
        ("box-1", "subscribe", "#", (False, "it overlaps what role reader denies", 16)),
        (
            "box-1",
            "subscribe",
            "a",
            (False, "box-1 has the role reader, and no subscribe filter there covers this filter", 14 - 2),
        ),
        ("alice", "publish", "events", (False, "no role matches alice, so the default decides", 2)),
        ("alice", "publish", f"{REPLY}/1", (True, "who was told a reply topic may always reply", 0)),
        (
            "alice",
            "subscribe",
            f"{REPLY}/+",
            (False, "only the session that a reply topic was made for may subscribe to it", 0),
        ),
        ("alice", "publish", "$quicbus/authority", (False, "topics below $quicbus/ are for the nodes themselves", 0)),
        ("alice", "publish", "$quicbus/reply/x", (False, "topics below $quicbus/ are for the nodes themselves", 0)),
    ],
)
def test_the_line_that_decides_is_named(name: str, action: str, subject: str, expected: tuple[bool, str, int]) -> None:
    explanation = explain(TABLE, name, Action(action), subject)
    assert (explanation.allowed, explanation.why, explanation.line) == expected
    assert explanation.text == (TEXT.splitlines()[expected[2] - 1].strip() if expected[2] else "")


@pytest.mark.parametrize(
    ("text", "why", "line"),
    [
        ("", "there is no table [permissions]", 0),
        ("\n[permissions]\n", "everyone may do everything: there is no role", 2),
        (
            '[permissions]\n[[permissions.role]]\nname = "r"\nmatch = ["b*"]\n',
            "no role matches alice, so the default decides",
            1,
        ),
    ],
)
def test_without_a_default_everything_is_allowed_where_no_role_matches(text: str, why: str, line: int) -> None:
    explanation = explain(parse_table(text, "f"), "alice", Action.PUBLISH, "x")
    assert (explanation.allowed, explanation.why, explanation.line) == (True, why, line)


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUICBUS_DATA_DIR", raising=False)
    (tmp_path / "q.toml").write_text(TEXT)
    return ["--config", "q.toml", "--data-dir", str(tmp_path / "data")]


def test_check_prints_the_deciding_line_and_exits_with_0_or_1(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["permissions", "check", "--as", "alice", *options, "publish", "orders/1"]) == 1
    assert capsys.readouterr().out == (
        "denied: alice may not publish orders/1\n"
        "  no role matches alice, so the default decides\n"
        '  q.toml:2: default = "deny"\n'
    )
    assert main(["permissions", "check", "--as", "sensor-2", *options, "publish", "events"]) == 0
    assert capsys.readouterr().out == (
        'allowed: sensor-2 may publish events\n  role sensor allows it\n  q.toml:9: "events",\n'
    )


def test_check_takes_a_group_by_its_filter_and_prints_json(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["permissions", "check", "--json", "--as", "x-1", *options, "subscribe", "$share/g/sensors/a"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "allowed": True,
        "name": "x-1",
        "action": "subscribe",
        "filter": "sensors/a",
        "why": "role reader allows it",
        "role": "reader",
        "roles": ["reader"],
        "file": "q.toml",
        "line": 15,
        "text": 'subscribe = ["sensors/#"]',
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--as", "a/b", "publish", "x"], "--as: 'a/b' is not allowed"),
        (["--as", "a", "publish", "x/#"], "invalid topic 'x/#'"),
        (["--as", "a", "subscribe", "x#"], "invalid topic 'x#'"),
        (["--as", "a", "read", "x"], "invalid value for '{publish|subscribe}': 'read' is not one of"),
        (["publish", "x"], "missing option '--as'"),
    ],
)
def test_check_used_wrongly_exits_with_2(
    options: list[str], arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["permissions", "check", *options, *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_wrong_table_is_told_with_its_line(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.toml").write_text(TEXT + "publsh = []\n")
    assert main(["permissions", "show", *options]) == 2
    assert "permissions.role.publsh (from q.toml:17): unknown key; did you mean publish?" in capsys.readouterr().err


def test_show_prints_the_roles_with_their_lines(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["permissions", "show", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "permissions: 2 roles, default deny (q.toml)"
    assert lines[1] == "role sensor (q.toml:4): sensor-*"
    assert lines[2].split() == ["publish", "sensors/${name}/#", "line", "8"]
    assert main(["permissions", "show", "--json", *options]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["file"], shown["restricts"], shown["default"]) == ("q.toml", True, "deny")
    assert shown["roles"][1]["deny_subscribe"] == [{"filter": "sensors/secret", "line": 16}]


def test_show_prints_what_one_name_may_do(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["permissions", "show", "--as", "sensor-1", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sensor-1: roles sensor, reader"
    assert ["publish", "sensors/sensor-1/#"] in [line.split() for line in lines]
    assert main(["permissions", "show", "--as", "alice", "--json", *options]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["roles"], shown["default"], shown["publish"]) == ([], "deny", [])


def test_without_a_file_everyone_may_do_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["permissions", "check", "--data-dir", str(tmp_path), "--as", "a", "publish", "x"]) == 0
    assert capsys.readouterr().out == "allowed: a may publish x\n  there is no table [permissions]\n"
