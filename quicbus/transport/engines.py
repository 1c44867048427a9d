"""Engines by name. Nothing is imported before it is asked for: `import quicbus` stays light."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from quicbus.exceptions import InvalidSetting

if TYPE_CHECKING:
    from quicbus.transport.engine import Engine

__all__ = ["ENGINE_NAMES", "engine_named"]

_PLACES = {
    "aioquic": ("quicbus.transport._aioquic", "AioquicEngine"),
    "qh3": ("quicbus.transport._qh3", "Qh3Engine"),
    "memory": ("quicbus.transport.memory", "MemoryEngine"),
}

ENGINE_NAMES = ("auto", "aioquic", "qh3")
"""What a setting may say. `memory` does not encrypt: only code asks for it."""


def engine_named(name: str) -> Engine:
    """Return the engine of that name; `auto` is qh3 where it is installed and aioquic otherwise.

    Raises `InvalidSetting` for an unknown name, and for `qh3` where it is not installed.
    """
    if name == "auto":
        name = "qh3" if find_spec("qh3") is not None else "aioquic"
    if name not in _PLACES:
        raise InvalidSetting("engine", f"{name!r} is not one of {', '.join(ENGINE_NAMES)}")
    module, attribute = _PLACES[name]
    try:
        engine: Engine = getattr(import_module(module), attribute)()
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(name):
            raise
        why = f"{name} is not installed; pip install 'quicbus[fast]', or choose engine 'aioquic'"
        raise InvalidSetting("engine", why) from error
    return engine
