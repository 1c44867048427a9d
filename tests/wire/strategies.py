"""What the tests of the wire draw from: frames of every type, bodies, and ways to split a stream."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
from hypothesis import strategies as st

from quicbus.wire import batch, frames
from quicbus.wire.records import Envelope

U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)

_BY_HINT: dict[object, st.SearchStrategy[Any]] = {
    frames.Count: U64,
    frames.Positive: st.integers(1, 2**64 - 1),
    frames.SubscriptionId: st.integers(0, 2**32 - 1),
    frames.Seconds: st.floats(0, 1e12),
    frames.Milliseconds: st.floats(0, 1e15),
    frames.Id128: st.binary(min_size=16, max_size=16),
    bool: st.booleans(),
    bytes: st.binary(max_size=40),
    str: TEXT,
    type(None): st.none(),
}


def _strategy_for(hint: Any) -> st.SearchStrategy[Any]:
    if hint in _BY_HINT:
        return _BY_HINT[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(_strategy_for, arguments))
    if origin is list:
        return st.lists(_strategy_for(arguments[0]), max_size=3)
    if origin is tuple:
        assert arguments[1] is Ellipsis
        return st.lists(_strategy_for(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(_strategy_for(arguments[0]), _strategy_for(arguments[1]), max_size=3)
    assert issubclass(hint, msgspec.Struct)
    return instances_of(hint)


def instances_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Draw instances of a struct with any values that its fields allow."""
    hints = typing.get_type_hints(cls, include_extras=True)
    hints.pop("TYPE", None)
    return st.builds(cls, **{name: _strategy_for(hint) for name, hint in hints.items()})


FRAMES: st.SearchStrategy[frames.Frame] = st.sampled_from(list(frames.FRAME_TYPES.values())).flatmap(instances_of)

ENVELOPES = st.builds(
    Envelope,
    origin=st.binary(min_size=16, max_size=16),
    boot=U64,
    sequence=U64,
    publisher=TEXT,
    first=st.integers(0, 2**32 - 1),
    age_ms=st.integers(0, 2**32 - 1),
    hop_limit=st.integers(0, 255),
)

MESSAGES = st.lists(st.one_of(st.binary(max_size=30), st.just(b"x" * 300)), min_size=1, max_size=20)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a valid body."""
    messages = draw(MESSAGES)
    if draw(st.integers(0, 9)) == 0:
        messages.append(bytes(70_000))
    return batch.encode_body(
        draw(st.binary(min_size=1, max_size=20)),
        messages,
        number=draw(st.integers(1, 2**64 - 1)),
        flags=draw(st.sampled_from([0, batch.FLAG_HEADERS, batch.FLAG_REQUEST])),
        reply_to=draw(st.binary(max_size=20)),
        expires_in_ms=draw(U64),
    )


@st.composite
def split(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """Cut a stream into chunks; some are empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
