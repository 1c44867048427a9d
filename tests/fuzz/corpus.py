"""The corpus: inputs by target, kept as text so that they can be reviewed and merged: one input a line, in base64."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FOLDER", "load", "save"]

FOLDER = Path(__file__).with_name("corpus")


def load(target: str) -> list[bytes]:
    """Return the inputs of a target, shortest first."""
    path = FOLDER / f"{target}.txt"
    return [b64decode(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def save(target: str, inputs: Iterable[bytes]) -> None:
    """Write the inputs of a target in place of those that were there."""
    FOLDER.mkdir(exist_ok=True)
    lines = [b64encode(data).decode() for data in sorted(set(inputs), key=lambda data: (len(data), data))]
    (FOLDER / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines))
