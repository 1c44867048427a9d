"""The reference msgpack library, which has no type hints."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_msgpack = importlib.import_module("msgpack")

pack: Callable[[object], bytes] = _msgpack.packb
unpack: Callable[[bytes], Any] = _msgpack.unpackb
