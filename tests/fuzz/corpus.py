"""The corpus: inputs by target, kept as text so that they can be reviewed and merged: one input a line, in base64.

`TARGET.txt` covers as much as few inputs can, and is made anew by each run of the fuzzer. `TARGET.found.txt` is what
once went wrong, and stays.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FOLDER", "keep", "load", "save"]

FOLDER = Path(__file__).with_name("corpus")


def load(target: str) -> list[bytes]:
    """Return the inputs of a target, and what was found with it."""
    return _read(f"{target}.txt") + _read(f"{target}.found.txt")


def save(target: str, inputs: Iterable[bytes]) -> None:
    """Write the inputs of a target in place of those that were there."""
    _write(f"{target}.txt", inputs)


def keep(target: str, found: Iterable[bytes]) -> None:
    """Add what went wrong with a target."""
    _write(f"{target}.found.txt", [*_read(f"{target}.found.txt"), *found])


def _read(name: str) -> list[bytes]:
    path = FOLDER / name
    return [b64decode(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def _write(name: str, inputs: Iterable[bytes]) -> None:
    FOLDER.mkdir(exist_ok=True)
    lines = [b64encode(data).decode() for data in sorted(set(inputs), key=lambda data: (len(data), data))]
    (FOLDER / name).write_text("".join(f"{line}\n" for line in lines))
