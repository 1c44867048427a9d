"""One setting's value: from what a file, the environment or an option says to what its field's type wants."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from quicbus.exceptions import InvalidSetting

__all__ = ["convert_value", "describe_type", "holds_paths"]

_UNITS = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
_SIZE = re.compile(r"\s*(\d+)\s*([a-zA-Z]*)\s*")


def convert_value(name: str, value: Any, type_: Any, where: str) -> Any:
    """Return `value` as `type_` wants it, or raise `InvalidSetting` that tells what is allowed.

    Text is read leniently ("8" for a number, "a, b" for a list, "4MiB" for a size): the environment knows nothing else.
    """
    plain = _without_none(type_)
    if value is None or (value == "" and plain is not _strip(type_)):
        return None
    if holds_paths(plain) and isinstance(value, str | PurePath):
        return Path(value).expanduser()
    if _is_sequence(plain) and isinstance(value, str):
        value = [part for part in re.split(r"[,\s]+", value) if part]
    if isinstance(value, str) and name.endswith("_size"):
        value = _size(value)
    try:
        return msgspec.convert(value, type=plain, strict=not isinstance(value, str))
    except msgspec.ValidationError:
        why = f"{_shown(value)} is not allowed; allowed: {describe_type(plain)}{_hint(value, plain)}"
        raise InvalidSetting(name, why, where) from None


def describe_type(type_: Any) -> str:
    """Return what a field of this type allows, in words: "a whole number, at least 1", "one of always, never"."""
    plain = _without_none(type_)
    inner = _strip(plain)
    if get_origin(inner) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(inner))
    if holds_paths(inner):
        return "a path"
    if _is_sequence(inner):
        return "a list of texts"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    bounds = "".join(_bounds(meta) for meta in getattr(plain, "__metadata__", ()) if isinstance(meta, msgspec.Meta))
    return words.get(inner, getattr(inner, "__name__", str(inner))) + bounds


def holds_paths(type_: Any) -> bool:
    """Whether a field of this type is a path (also `Path | None` and `str | Path`)."""
    plain = _strip(type_)
    members = get_args(plain) if _is_union(plain) else (plain,)
    return any(isinstance(member, type) and issubclass(member, PurePath) for member in members)


def _bounds(meta: msgspec.Meta) -> str:
    bounds = (("at least", meta.ge), ("more than", meta.gt), ("at most", meta.le), ("less than", meta.lt))
    return "".join(f", {word} {bound}" for word, bound in bounds if bound is not None)


def _size(text: str) -> int | str:
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    return text if match is None or unit is None else int(match[1]) * unit


def _hint(value: Any, type_: Any) -> str:
    if get_origin(type_) is not Literal:
        return ""
    close = difflib.get_close_matches(str(value), [str(choice) for choice in get_args(type_)], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_union(type_: Any) -> bool:
    return get_origin(type_) in (Union, types.UnionType)


def _is_sequence(type_: Any) -> bool:
    origin = get_origin(_strip(type_))
    return isinstance(origin, type) and issubclass(origin, Sequence | set | frozenset)


def _strip(type_: Any) -> Any:
    return get_args(type_)[0] if get_origin(type_) is Annotated else type_


def _without_none(type_: Any) -> Any:
    """Return the type without `None`; its constraints stay."""
    if not _is_union(type_):
        return type_
    members = [member for member in get_args(type_) if member is not type(None)]
    return members[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007  # made at run time
