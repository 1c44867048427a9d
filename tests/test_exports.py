"""What `import quicbus` promises: listed, sorted, complete, light."""

from __future__ import annotations

import importlib

import pytest

import quicbus
from quicbus import exceptions

PACKAGES = ["quicbus", "quicbus.blocking", "quicbus.client", "quicbus.identity", "quicbus.transport"]


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_everything_in_it_exists(name: str) -> None:
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(module.__all__, key=_constants_first)
    assert [each for each in module.__all__ if not hasattr(module, each)] == []


def _constants_first(name: str) -> tuple[int, str]:
    """As ruff sorts `__all__`: constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", exceptions.__all__)
def test_every_exception_is_importable_from_quicbus_and_derives_from_its_base(name: str) -> None:
    assert name in quicbus.__all__
    exception = getattr(quicbus, name)
    assert exception is getattr(exceptions, name)
    assert issubclass(exception, quicbus.QuicbusError)


def test_every_event_is_importable_from_quicbus() -> None:
    assert {each.__name__ for each in quicbus.Event.__subclasses__()} <= set(quicbus.__all__)
