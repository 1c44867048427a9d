"""Reading the `[permissions]` table: what is wrong in it is refused with file, line and remedy."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING, Any

from quicbus import limits
from quicbus.exceptions import InvalidSetting, InvalidTopic
from quicbus.topics import check_filter
from quicbus_broker.permissions.reserved import RESERVED
from quicbus_broker.permissions.table import NAME_PLACE, Role, Rule, Table
from quicbus_broker.permissions.toml_lines import line_numbers

if TYPE_CHECKING:
    import pathlib

    from quicbus_broker.permissions.toml_lines import Path

__all__ = ["TABLE_NAME", "parse_table", "read_table"]

TABLE_NAME = "permissions"

_KEYS = ("default", "role")
_RULE_KEYS = ("publish", "subscribe", "deny_publish", "deny_subscribe")
_ROLE_KEYS = ("name", "match", *_RULE_KEYS)
_DEFAULTS = ("allow", "deny")
_PATTERN = re.compile(r"[A-Za-z0-9._@*?\[\]!-]+")
_PLACE = re.compile(r"\$\{.*?(\}|$)")
_SHARE = "$share/"


def read_table(path: pathlib.Path) -> Table:
    """Return the table of a file; one without a table lets everyone do everything.

    Raises `InvalidSetting`, `where` being `FILE:LINE`. Reads a file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limits.MAX_PERMISSIONS_FILE_SIZE + 1)
    except OSError as error:
        raise InvalidSetting(TABLE_NAME, f"not readable: {error.strerror}", str(path)) from None
    if len(content) > limits.MAX_PERMISSIONS_FILE_SIZE:
        most = f"at most {limits.MAX_PERMISSIONS_FILE_SIZE} bytes are read; use `${{name}}` for what differs by name"
        raise InvalidSetting(TABLE_NAME, most, str(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidSetting(TABLE_NAME, "not readable as TOML: not UTF-8", f"{path}:{line}") from None
    return parse_table(text.replace("\r\n", "\n"), str(path))


def parse_table(text: str, file: str) -> Table:
    """Return the table of the text of a file named `file`; raises `InvalidSetting`."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+)", str(error))
        where = f"{file}:{place[1]}" if place else file
        raise InvalidSetting(TABLE_NAME, f"not readable as TOML: {error}", where) from None
    except RecursionError:
        raise InvalidSetting(TABLE_NAME, "not readable as TOML: nested too deeply", file) from None
    if TABLE_NAME not in content:
        return Table(file=file)
    return _Reader(text, file).table(content[TABLE_NAME])


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._numbers = line_numbers(text)
        self._lines = tuple(text.split("\n"))

    def table(self, given: Any) -> Table:
        top: Path = (TABLE_NAME,)
        if not isinstance(given, dict):
            raise self._wrong(top, "it is a table: [permissions]")
        self._refuse_unknown(given, _KEYS, top)
        default = given.get("default", _DEFAULTS[0])
        if default not in _DEFAULTS:
            raise self._wrong((*top, "default"), f'{default!r} is not allowed; allowed: "allow" or "deny"')
        roles = given.get("role", [])
        if not isinstance(roles, list) or not all(isinstance(role, dict) for role in roles):
            raise self._wrong((*top, "role"), "roles are tables, each begins with [[permissions.role]]")
        read = tuple(self._role(role, (*top, "role", index)) for index, role in enumerate(roles))
        self._refuse_twins(read)
        return Table(
            roles=read,
            allows_unmatched=default == "allow",
            file=self._file,
            line=self._numbers.get(top, 0),
            default_line=self._line((*top, "default")) if "default" in given else 0,
            lines=self._lines,
        )

    def _role(self, given: dict[str, Any], at: Path) -> Role:
        self._refuse_unknown(given, _ROLE_KEYS, at)
        for key in ("name", "match"):
            if key not in given:
                raise self._wrong((*at, key), f"each role has one; allowed: {', '.join(_ROLE_KEYS)}")
        name = given["name"]
        if not isinstance(name, str) or not name.strip():
            raise self._wrong((*at, "name"), f"{name!r} is not allowed; allowed: a text")
        match = tuple(self._pattern(text, at) for text, at in self._texts(given["match"], (*at, "match")))
        if not match:
            raise self._wrong((*at, "match"), f'role {name} matches nobody; "*" matches every certificate name')
        rules = {
            key: tuple(
                Rule(self._filter(text, item), self._line(item))
                for text, item in self._texts(given.get(key, []), (*at, key))
            )
            for key in _RULE_KEYS
        }
        return Role(name=name, line=self._line(at), match=match, **rules)

    def _texts(self, given: Any, at: Path) -> list[tuple[str, Path]]:
        if not isinstance(given, list):
            raise self._wrong(at, f"{given!r:.80} is not allowed; allowed: a list of texts")
        for index, text in enumerate(given):
            if not isinstance(text, str):
                raise self._wrong((*at, index), f"{text!r:.80} is not allowed; allowed: a text")
        return [(text, (*at, index)) for index, text in enumerate(given)]

    def _pattern(self, text: str, at: Path) -> str:
        if not _PATTERN.fullmatch(text):
            why = "certificate names hold A-Z a-z 0-9 . _ @ -, patterns also * ? [...]"
            raise self._wrong(at, f"{text!r:.80} matches no name; {why}")
        return text

    def _filter(self, text: str, at: Path) -> str:
        if text.startswith(_SHARE):
            raise self._wrong(at, f"{text!r:.80}: leave out $share and the group; they go by their filter")
        if text.startswith(RESERVED.decode()):
            raise self._wrong(at, f"{text!r:.80}: quicbus has rules of its own for these; replies are always allowed")
        for place in _PLACE.finditer(text):
            if place[0] != NAME_PLACE:
                raise self._wrong(at, f"{text!r:.80}: {place[0]} stands for nothing; did you mean {NAME_PLACE}?")
        try:
            check_filter(text.replace(NAME_PLACE, "name"))
        except InvalidTopic as error:
            raise self._wrong(at, f"{text!r:.80} is no filter: {error.why}") from None
        return text

    def _refuse_unknown(self, given: dict[str, Any], known: tuple[str, ...], at: Path) -> None:
        for key in given:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
                hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(known)}"
                raise self._wrong((*at, key), f"unknown key; {hint}")

    def _refuse_twins(self, roles: tuple[Role, ...]) -> None:
        seen: dict[str, Role] = {}
        for index, role in enumerate(roles):
            other = seen.setdefault(role.name, role)
            if other is not role:
                at = (TABLE_NAME, "role", index, "name")
                raise self._wrong(at, f"role {role.name} stands on line {other.line} too; give it another name")

    def _wrong(self, at: Path, why: str) -> InvalidSetting:
        name = ".".join(each for each in at if isinstance(each, str))
        return InvalidSetting(name, why, f"{self._file}:{self._line(at)}")

    def _line(self, at: Path) -> int:
        """Return the line of what is named or, where that is missing, of what it would stand in."""
        while at not in self._numbers and len(at) > 1:
            at = at[:-1]
        return self._numbers.get(at, 1)
