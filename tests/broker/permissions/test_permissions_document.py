"""docs/permissions.md says what the code does: its table, its explanations, its figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quicbus import limits
from quicbus.topics import parse_filter
from quicbus_broker.permissions import Action
from quicbus_broker.permissions.explain import explain
from quicbus_broker.permissions.read_table import parse_table

DOCUMENT = (Path(__file__).parents[3] / "docs" / "permissions.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(
    r"^\$ quicbus permissions check --as (\S+) (\S+) (\S+)\n(.*?)(?=\n\n|\n```)", DOCUMENT, re.M | re.S
)


def table_of_the_document() -> str:
    block = re.search(r"^```toml\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1]


@pytest.mark.parametrize(("name", "action", "subject", "shown"), EXAMPLES)
def test_examples_explain_as_the_command_does(name: str, action: str, subject: str, shown: str) -> None:
    table = parse_table(table_of_the_document(), "quicbus.toml")
    filter, _ = parse_filter(subject.strip("'"))
    assert str(explain(table, name, Action(action), filter)) == shown
    assert len(EXAMPLES) == 2


def test_what_the_text_says_of_its_table_holds() -> None:
    table = parse_table(table_of_the_document(), "quicbus.toml")
    assert explain(table, "alice", Action.SUBSCRIBE, "sensors/+/temperature").allowed
    assert not explain(table, "alice", Action.SUBSCRIBE, "sensors/#").allowed


def test_figures_are_those_of_the_code() -> None:
    assert f"{limits.CACHED_DECISIONS:,} of them" in DOCUMENT
    assert limits.CACHED_DECISIONS_SIZE == 8 << 20
    assert limits.MAX_PERMISSIONS_FILE_SIZE == 1 << 20
