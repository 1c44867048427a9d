"""On which line each key and each item of a TOML text stands.

`tomllib` keeps no places, and neither does tomlkit, the library that keeps the text. So this scans a text that
`tomllib` has accepted: what is wrong in one is not looked for, and values are not read, only passed over.
"""

from __future__ import annotations

import re
import tomllib
from itertools import accumulate
from typing import NamedTuple

__all__ = ["Path", "line_numbers"]

Path = tuple[str | int, ...]
"""Keys, and indices in arrays (of tables too): `("permissions", "role", 0, "publish", 2)`."""

_TOKEN = re.compile(
    r"""
      (?P<space> [ \t\r]+ | \#[^\n]* )
    | (?P<newline> \n )
    | (?P<string> \"{3} (?: \\. | [^\\] )*? \"{3,5}
                | '{3} .*? '{3,5}
                | " (?: \\. | [^"\\] )* "
                | ' [^']* ' )
    | (?P<mark> [\[\]{}=,.] )
    | (?P<bare> [^\s\[\]{}=,."'\#]+ )
    """,
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def line_numbers(text: str) -> dict[Path, int]:
    """Return the lines, counted from 1, of all that a valid TOML text defines; of a table that of its (last) header."""
    return _Scan(text).document()


class _Scan:
    def __init__(self, text: str) -> None:
        found = list(_TOKEN.finditer(text))
        lines = accumulate((match[0].count("\n") for match in found), initial=1)
        self._tokens = [
            _Token(match.lastgroup or "", match[0], line)
            for match, line in zip(found, lines, strict=False)
            if match.lastgroup != "space"
        ]
        self._at = 0
        self._lines: dict[Path, int] = {}
        self._tables: dict[Path, int] = {}
        """Of arrays of tables: how many there are so far."""

    def document(self) -> dict[Path, int]:
        base: Path = ()
        while self._at < len(self._tokens):
            if self._token.kind == "newline":
                self._at += 1
            elif self._token.text == "[":
                base = self._header()
            else:
                self._pair(base)
        return self._lines

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def _is_at(self, *texts: str) -> bool:
        return self._at < len(self._tokens) and self._token.kind != "string" and self._token.text in texts

    def _header(self) -> Path:
        line = self._token.line
        self._at += 1
        is_array = self._is_at("[")
        self._at += is_array
        *front, last = self._keys()
        self._at += 1 + is_array
        path: Path = ()
        for key in front:
            path = self._entered((*path, key))
        path = (*path, last)
        if is_array:
            self._tables[path] = self._tables.get(path, 0) + 1
        path = self._entered(path)
        self._lines[path] = line
        return path

    def _entered(self, path: Path) -> Path:
        """Return the path into the last table so far, where it is an array of tables."""
        return (*path, self._tables[path] - 1) if path in self._tables else path

    def _pair(self, base: Path) -> None:
        line = self._token.line
        path = base
        for key in self._keys():
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._at += 1
        self._value(path)

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            token = self._token
            keys.append(_unquoted(token.text) if token.kind == "string" else token.text)
            self._at += 1
            if not self._is_at("."):
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        if self._is_at("["):
            self._items(path)
        elif self._is_at("{"):
            self._at += 1
            self._skip_between()
            while not self._is_at("}"):
                self._pair(path)
                self._skip_between()
            self._at += 1
        else:
            while self._at < len(self._tokens) and not self._is_at(",", "]", "}", "\n"):
                self._at += 1

    def _items(self, path: Path) -> None:
        self._at += 1
        self._skip_between()
        index = 0
        while not self._is_at("]"):
            self._lines[(*path, index)] = self._token.line
            self._value((*path, index))
            self._skip_between()
            index += 1
        self._at += 1

    def _skip_between(self) -> None:
        while self._is_at("\n", ","):
            self._at += 1


def _unquoted(key: str) -> str:
    value: str = tomllib.loads(f"key = {key}")["key"]
    return value
