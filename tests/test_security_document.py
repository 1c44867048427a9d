"""docs/security.md: every test that it names exists and every limit has the value that the code has."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from quicbus import limits
from quicbus_broker.settings import BrokerSettings
from tests.abuse.attackers import ATTACKS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "security.md").read_text()
LIMITS = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", TEXT, re.MULTILINE)


def named_tests() -> list[tuple[str, str]]:
    """Return file and name of each test; after the first of a file only `::name` stands."""
    found: list[tuple[str, str]] = []
    path = ""
    for file, name in re.findall(r"`(tests/[\w/]+\.py)?(?:::(test_\w+))?`", TEXT):
        path = file or path
        if name:
            found.append((path, name))
    return found


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_test_that_is_named_exists() -> None:
    missing = [
        f"{path}::{name}"
        for path, name in named_tests()
        if not (ROOT / path).is_file() or name not in functions_of(path)
    ]
    assert not missing, "\n".join(missing)
    assert len(named_tests()) > 100


def test_every_attack_that_is_listed_is_made() -> None:
    listed = re.search(r"They are: (.*?)\.\n", TEXT, re.DOTALL)
    assert listed is not None
    names = [" ".join(name.split()) for name in re.findall(r"`(.*?)`", listed[1], re.DOTALL)]
    assert len(names) > 20
    assert not set(names) - set(ATTACKS)


@pytest.mark.parametrize(("name", "value"), LIMITS)
def test_every_limit_has_the_value_of_the_code(name: str, value: str) -> None:
    source = limits if name.isupper() else BrokerSettings()
    assert str(getattr(source, name)) == value.strip()


def test_every_limit_of_the_edge_that_can_be_set_is_listed() -> None:
    settings = {name for name in BrokerSettings.__dataclass_fields__ if name.startswith("max_")}
    assert settings - {name for name, _ in LIMITS} == {"max_hops", "max_datagram_size"}
