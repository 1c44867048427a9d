"""Classes of values that are made for each batch: cheap to make, whether their module is compiled or not."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

import msgspec

__all__ = ["make_structs"]


def make_structs(module: dict[str, Any], *classes: type, frozen: bool = False, gc: bool = False) -> None:
    """Put structs in the place of classes of a module (its `globals()`), unless it is compiled.

    A compiled class is made in 7 ns and a struct in 45, but a class with an `__init__` in Python in 100. Fields and
    defaults are the parameters of `__init__`, which sets each of them. `frozen`: all of them are `Final`, and a struct
    refuses what the compiler does. `gc=False`: nothing that they hold refers back to them, and the collector need not
    know them.
    """
    for one in classes:
        if not hasattr(one, "__mypyc_attrs__"):
            module[one.__name__] = _struct_of(one, frozen=frozen, gc=gc)


def _struct_of(one: type, *, frozen: bool, gc: bool) -> type:
    fields: list[Any] = []
    for name, parameter in inspect.signature(one).parameters.items():
        has_default = parameter.default is not inspect.Parameter.empty
        fields.append((name, Any, parameter.default) if has_default else (name, Any))
    kept = (FunctionType, property, classmethod)
    members = {
        name: member
        for name, member in vars(one).items()
        if name == "__doc__" or (isinstance(member, kept) and not name.startswith("__"))
    }
    return msgspec.defstruct(
        one.__name__,
        fields,
        namespace=members,
        module=one.__module__,
        eq="__eq__" in vars(one),
        frozen=frozen,
        gc=gc,
    )
