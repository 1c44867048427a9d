"""Places in TOML, however it is written: what tomllib finds is found, on the line where it stands."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicbus_broker.permissions.toml_lines import line_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTS = [
    'a = 1\nb = "x" # [c]\n\n[t]\nk = [1, 2,\n  3]\n',
    '[[r]]\nname = "one"\n[[r]]\nname = "two"\n[r.sub]\nx = 1\n[[r.list]]\ny = 2\n[[r.list]]\ny = 3\n',
    'a.b.c = 1\na.b.d = """\n[no]\nkey = "\\""\n"""\n[x]\n"quoted key" = 1\n\'lit.eral\' = 2\n',
    'inline = { a = [1, { b = 2 }], "c d" = 3 }\nlast = [[1], [], [2, 3]]',
    "s = '''\n''two quotes''''\nq = \"\"\"a\"\"\"\"\"\nafter = 1\n",
    "d = 1979-05-27 07:32:00.5\nf = -1.5e+3\nt = [07:32:00, 1.0] # end",
    "[a.'b.c'.d]\nx = 1\n[ spaced . key ]\ny = 2\n",
    'escaped = "a\\\\" # "\nnext = "\\\\\\""\nend = 1\n',
    "comma = [\n  1, # one, two ]\n  2,\n\n  # three\n  3,\n]\nz = 0\n",
]


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of all that is no table and, of arrays, of every item."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
        return
    yield path
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from leaves(each, (*path, index))


def is_array_of_tables(document: dict[str, Any], path: tuple[str | int, ...]) -> bool:
    value: Any = document
    for key in path:
        value = value[key]
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


@pytest.mark.parametrize("text", DOCUMENTS)
def test_every_value_has_a_line(text: str) -> None:
    document = tomllib.loads(text)
    lines = line_numbers(text)
    missing = [path for path in leaves(document) if path not in lines and not is_array_of_tables(document, path)]
    assert not missing
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


def test_lines_are_those_on_which_keys_items_and_headers_stand() -> None:
    lines = line_numbers(DOCUMENTS[1] + '[p]\nq = [\n  "a",\n\n  "b", "c"]\n')
    assert lines["r", 0] == 1
    assert lines["r", 1] == 3
    assert lines["r", 1, "name"] == 4
    assert lines["r", 1, "sub", "x"] == 6
    assert lines["r", 1, "list", 1, "y"] == 10
    assert (lines["p", "q"], lines["p", "q", 0], lines["p", "q", 1], lines["p", "q", 2]) == (12, 13, 15, 15)


KEYS = st.sampled_from(["a", "b-1", '"q.k"', "'l]'", "x . y", '"esc\\"aped"'])
TEXTS = st.sampled_from(
    [
        '"plain"',
        "'lit#eral'",
        '"[x] = 1"',
        '"""\nk = 1\n"""',
        "'''a'b''c'''",
        '"\\\\"',
        "1.5",
        "true",
        "2020-01-01",
        '""',
    ]
)
VALUES = st.recursive(
    TEXTS,
    lambda inner: st.lists(inner, max_size=4).flatmap(
        lambda items: st.sampled_from([", ", ",\n  ", ", # ]\n"]).map(lambda between: f"[{between.join(items)}\n]")
    ),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.booleans(), VALUES), min_size=1, max_size=6))
def test_what_stands_before_moves_what_follows_by_its_lines(given: list[tuple[bool, str]]) -> None:
    text = ""
    expected: dict[tuple[str | int, ...], int] = {}
    for index, (is_role, value) in enumerate(given):
        if is_role:
            text += f"[[role{index}]] # {index}\n"
            expected[f"role{index}", 0, "key"] = text.count("\n") + 1
        else:
            text += f"[table{index}]\n\n"
            expected[f"table{index}", "key"] = text.count("\n") + 1
        text += f"key = {value}\n"
    document = tomllib.loads(text)

    lines = line_numbers(text)

    assert {path: lines[path] for path in expected} == expected
    assert all(path in lines for path in leaves(document) if not is_array_of_tables(document, path))


@given(st.lists(st.tuples(KEYS, TEXTS), min_size=1, max_size=6, unique_by=lambda pair: pair[0]))
def test_keys_are_found_however_they_are_quoted(pairs: list[tuple[str, str]]) -> None:
    text = "".join(f"{key} = {value}\n" for key, value in pairs)
    lines = line_numbers(text)
    assert all(path in lines for path in leaves(tomllib.loads(text)))
