"""What a settings class says about its fields: for options, `--help` and docs/configuration.md."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

from quicbus.setting_values import describe_type

__all__ = ["SettingDescription", "describe_settings", "markdown_table"]


@dataclass(frozen=True, slots=True)
class SettingDescription:
    """One setting: its key, what is allowed, the default as text, and the docstring under the field."""

    name: str
    allowed: str
    default: str
    text: str

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "QUICBUS_" + self.name.upper()


def describe_settings(kind: type[Any]) -> list[SettingDescription]:
    """Return the settings of a dataclass, in the order of its fields."""
    types = get_type_hints(kind, include_extras=True)
    texts = _field_docstrings(kind)
    return [
        SettingDescription(field.name, describe_type(types[field.name]), _default(field), texts.get(field.name, ""))
        for field in dataclasses.fields(kind)
    ]


def markdown_table(kind: type[Any]) -> str:
    """Return the settings as a Markdown table, as it stands in docs/configuration.md."""
    lines = ["| setting | allowed | default | |", "|---|---|---|---|"]
    for each in describe_settings(kind):
        cells = (f"`{each.name}`", each.allowed, each.default, each.text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    if value is None or value == "" or value == ():
        return "none"
    if isinstance(value, tuple | list):
        return ", ".join(f"`{each}`" for each in value)
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


def _field_docstrings(kind: type[Any]) -> dict[str, str]:
    """Return the string that stands under each field in the source, in one line."""
    try:
        # Of the whole module: to find the source of a class `inspect` parses that, then the class once more.
        module = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    except (OSError, TypeError):
        return {}
    body = next(each.body for each in module.body if isinstance(each, ast.ClassDef) and each.name == kind.__name__)
    texts: dict[str, str] = {}
    for statement, following in pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            texts[statement.target.id] = " ".join(following.value.value.split())
    return texts
