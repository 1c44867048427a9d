"""The one place of the simulation where chance comes from: generators that are made of a seed."""

from __future__ import annotations

import random

__all__ = ["chance"]


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 (a simulation that can be run again)
