"""The table of the regression guard: what was measured, and by how much a count may be over it.

`python -m tests.performance --write` measures it anew (medians of five runs) once a change is worth its price.
"""

from __future__ import annotations

__all__ = ["MARGINS", "MEASURED"]

MARGINS = {
    "datagrams": 0.10,
    "kilobytes": 0.03,
    "transmits": 0.20,
    "system calls": 0.15,
    "function calls": 0.07,
    "peak kilobytes": 0.25,
}
"""Acknowledgements go by time, and change most counts a little. All but the last, the most bytes that
Python holds at once in a round, are per thousand messages, of publisher, broker and subscribers together; a fan-out
counts messages published. Function calls are those of and out of quicbus' own code."""

MEASURED = {
    # written by `python -m tests.performance --write`: begin
    ("one topic", "aioquic"): {
        "datagrams": 39.75,
        "kilobytes": 261.998,
        "transmits": 20,
        "system calls": 54.25,
        "function calls": 10217.2,
        "peak kilobytes": 280.388,
    },
    ("one topic", "qh3"): {
        "datagrams": 117.25,
        "kilobytes": 264.712,
        "transmits": 13.25,
        "system calls": 42.5,
        "function calls": 9653.25,
        "peak kilobytes": 236.056,
    },
    ("100 topics", "aioquic"): {
        "datagrams": 48,
        "kilobytes": 288.799,
        "transmits": 21.5,
        "system calls": 59.5,
        "function calls": 35891,
        "peak kilobytes": 347.697,
    },
    ("100 topics", "qh3"): {
        "datagrams": 130.75,
        "kilobytes": 291.571,
        "transmits": 13,
        "system calls": 50,
        "function calls": 36759,
        "peak kilobytes": 224.302,
    },
    ("fan-out to 10", "aioquic"): {
        "datagrams": 253.5,
        "kilobytes": 1442.85,
        "transmits": 167.5,
        "system calls": 327,
        "function calls": 44553,
        "peak kilobytes": 1503.97,
    },
    ("fan-out to 10", "qh3"): {
        "datagrams": 981.5,
        "kilobytes": 1468.39,
        "transmits": 74,
        "system calls": 196,
        "function calls": 40187.5,
        "peak kilobytes": 814.318,
    },
    ("requests", "aioquic"): {
        "datagrams": 4910,
        "kilobytes": 1274.16,
        "transmits": 7260,
        "system calls": 14500,
        "function calls": 1.43016e06,
        "peak kilobytes": 84.757,
    },
    ("requests", "qh3"): {
        "datagrams": 5620,
        "kilobytes": 1300,
        "transmits": 9150,
        "system calls": 16740,
        "function calls": 1.15054e06,
        "peak kilobytes": 76.479,
    },
    # written by `python -m tests.performance --write`: end
}
