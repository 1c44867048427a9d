"""Reading the table: what it holds, and that what is wrong is told with file, line and remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.exceptions import InvalidSetting
from quicbus_broker.permissions import Rule, read_table
from quicbus_broker.permissions.read_table import parse_table

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = """\
listen = "[::]:4433"

[permissions]
default = "deny"

[[permissions.role]]
name = "sensor"
match = ["sensor-*", "probe-?"]
publish = ["sensors/${name}/#"]
subscribe = [
    "commands/${name}",
    "commands/all",
]
deny_publish = []

[[permissions.role]]
name = "everyone"
match = ["*"]
deny_subscribe = ["secret/#"]
"""


def test_a_table_is_read_with_the_lines_of_its_rules() -> None:
    table = parse_table(WHOLE, "quicbus.toml")
    sensor, everyone = table.roles
    assert (table.allows_unmatched, table.line, table.default_line) == (False, 3, 4)
    assert (sensor.name, sensor.line, sensor.match) == ("sensor", 6, ("sensor-*", "probe-?"))
    assert sensor.publish == (Rule("sensors/${name}/#", 9),)
    assert sensor.subscribe == (Rule("commands/${name}", 11), Rule("commands/all", 12))
    assert (sensor.deny_publish, sensor.deny_subscribe) == ((), ())
    assert everyone.deny_subscribe == (Rule("secret/#", 19),)
    assert table.where(12) == "quicbus.toml:12"
    assert table.text(12) == '"commands/all",'
    assert str(table) == "2 roles, default deny (quicbus.toml)"


def test_a_file_without_the_table_restricts_nobody() -> None:
    table = parse_table("name = 'x'\n", "quicbus.toml")
    assert not table.restricts
    assert str(table) == "everyone may publish and subscribe to everything (quicbus.toml)"


def test_the_default_of_a_table_is_to_allow() -> None:
    assert parse_table("[permissions]\n", "f").allows_unmatched
    assert not parse_table("[permissions]\n", "f").restricts


def test_an_inline_table_is_the_same_table() -> None:
    table = parse_table('permissions = { default = "deny", role = [{ name = "a", match = ["b"] }] }\n', "f")
    assert [role.name for role in table.roles] == ["a"]


ROLE = '[permissions]\n[[permissions.role]]\nname = "r"\nmatch = ["*"]\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[permissions]\ndefalt = 'deny'\n", "permissions.defalt (from f:2): unknown key; did you mean default?"),
        ("[permissions]\nx = 1\n", "permissions.x (from f:2): unknown key; allowed: default, role"),
        (
            "[permissions]\ndefault = 'no'\n",
            'permissions.default (from f:2): \'no\' is not allowed; allowed: "allow" or "deny"',
        ),
        ("permissions = 3\n", "permissions (from f:1): it is a table: [permissions]"),
        (
            "[permissions.role]\nname = 'a'\n",
            "permissions.role (from f:1): roles are tables, each begins with [[permissions.role]]",
        ),
        (
            ROLE + "deny_publsh = []\n",
            "permissions.role.deny_publsh (from f:5): unknown key; did you mean deny_publish?",
        ),
        (
            "[[permissions.role]]\nmatch = ['*']\n",
            (
                "permissions.role.name (from f:1): each role has one; "
                "allowed: name, match, publish, subscribe, deny_publish, deny_subscribe"
            ),
        ),
        (
            "[[permissions.role]]\nname = 'r'\nmatch = []\n",
            'permissions.role.match (from f:3): role r matches nobody; "*" matches every certificate name',
        ),
        (
            "[[permissions.role]]\nname = 'r'\nmatch = [\n'a',\n'b/c']\n",
            (
                "permissions.role.match (from f:5): 'b/c' matches no name; "
                "certificate names hold A-Z a-z 0-9 . _ @ -, patterns also * ? [...]"
            ),
        ),
        (
            "[[permissions.role]]\nname = 'r'\nmatch = '*'\n",
            "permissions.role.match (from f:3): '*' is not allowed; allowed: a list of texts",
        ),
        (ROLE + "publish = [3]\n", "permissions.role.publish (from f:5): 3 is not allowed; allowed: a text"),
        (
            ROLE + "publish = [\n'a',\n'a/#/b']\n",
            "permissions.role.publish (from f:7): 'a/#/b' is no filter: '#' must be the last character",
        ),
        (
            ROLE + "publish = ['a/${nam}']\n",
            "permissions.role.publish (from f:5): 'a/${nam}': ${nam} stands for nothing; did you mean ${name}?",
        ),
        (
            ROLE + "subscribe = ['$share/g/a']\n",
            (
                "permissions.role.subscribe (from f:5): '$share/g/a': leave out $share and the group; "
                "they go by their filter"
            ),
        ),
        (
            ROLE + "subscribe = ['$quicbus/#']\n",
            (
                "permissions.role.subscribe (from f:5): '$quicbus/#': quicbus has rules of its own for these; "
                "replies are always allowed"
            ),
        ),
        (
            ROLE + ROLE.partition("\n")[2],
            "permissions.role.name (from f:6): role r stands on line 2 too; give it another name",
        ),
        (ROLE + "name = 'r'\n", None),
        ("\n\nx = \n", None),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, expected: str | None) -> None:
    with pytest.raises(InvalidSetting) as caught:
        parse_table(text, "f")
    if expected is None:
        line = text.count("\n")
        assert f"permissions (from f:{line}): not readable as TOML: " in str(caught.value)
    else:
        assert str(caught.value) == expected


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"permissions \(from .*missing\.toml\): not readable: No such file"):
        read_table(tmp_path / "missing.toml")


def test_a_file_that_is_not_utf_8_is_told_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "quicbus.toml"
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(InvalidSetting, match=r"quicbus\.toml:2\): not readable as TOML: not UTF-8"):
        read_table(path)


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PERMISSIONS_FILE_SIZE", 100)
    path = tmp_path / "quicbus.toml"
    path.write_text("# " + "x" * 200)
    with pytest.raises(InvalidSetting, match="at most 100 bytes are read"):
        read_table(path)


def test_lines_count_alike_with_the_line_ends_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "quicbus.toml"
    path.write_bytes(WHOLE.replace("\n", "\r\n").encode())
    table = read_table(path)
    assert table.roles[0].subscribe[1] == Rule("commands/all", 12)
    assert table.text(12) == '"commands/all",'
