"""Values of a batch: structs in the place of classes that are not compiled."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from quicbus.values import make_structs


class Plain:
    """Of a batch."""

    __slots__ = ("count", "topic")

    def __init__(self, topic: bytes, count: int = 1) -> None:
        self.topic = topic
        self.count = count

    @classmethod
    def of(cls, topic: str) -> Plain:
        return cls(topic.encode(), 2)

    @property
    def is_single(self) -> bool:
        return self.count == 1


@dataclass(init=False, slots=True)
class Compared:
    topic: bytes

    def __init__(self, topic: bytes) -> None:
        self.topic = topic


def struct_of(one: type, **options: bool) -> Any:
    module: dict[str, Any] = {}
    make_structs(module, one, **options)
    return module[one.__name__]


def test_a_struct_has_the_fields_the_defaults_and_the_methods_of_its_class() -> None:
    struct = struct_of(Plain)

    assert issubclass(struct, msgspec.Struct)
    assert (struct.__name__, struct.__module__, struct.__doc__) == ("Plain", __name__, "Of a batch.")
    assert struct(b"t").is_single
    assert isinstance(struct.of("t"), struct)
    assert (struct.of("t").topic, struct.of("t").count) == (b"t", 2)
    with pytest.raises(TypeError):
        struct()


def test_values_are_equal_only_where_their_class_compares_them() -> None:
    plain, compared = struct_of(Plain), struct_of(Compared)

    assert plain(b"t") != plain(b"t")
    assert compared(b"t") == compared(b"t")
    assert compared(b"t") != compared(b"u")


def test_a_frozen_one_cannot_be_changed() -> None:
    value = struct_of(Compared, frozen=True)(b"t")

    with pytest.raises(AttributeError):
        value.topic = b"u"
    assert value.topic == b"t"


def test_the_collector_knows_a_value_only_where_that_is_asked_for() -> None:
    assert not gc.is_tracked(struct_of(Plain)([]))
    assert gc.is_tracked(struct_of(Plain, gc=True)([]))


def test_a_compiled_class_stays() -> None:
    compiled = type("Compiled", (), {"__mypyc_attrs__": ()})
    module: dict[str, Any] = {"Compiled": compiled}

    make_structs(module, compiled)

    assert module["Compiled"] is compiled
