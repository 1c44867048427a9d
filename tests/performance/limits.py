"""The table of the regression guard: what was measured, and by how much a count may be over it.

`python -m tests.performance --write` measures it anew (medians of five runs) once a change is worth its price.
"""

from __future__ import annotations

__all__ = ["MARGINS", "MEASURED"]

MARGINS = {
    "datagrams": 0.30,
    "kilobytes": 0.03,
    "transmits": 1.00,
    "system calls": 1.00,
    "function calls": 0.15,
    "peak kilobytes": 1.00,
}
"""Acknowledgements go by time, and change most counts a little. All but the last, the most bytes that
Python holds at once in a round, are per thousand messages, of publisher, broker and subscribers together; a fan-out
counts messages published. Function calls are those of and out of quicbus' own code."""

MEASURED = {
    # written by `python -m tests.performance --write`: begin
    ("one topic", "aioquic"): {
        "datagrams": 36.75,
        "kilobytes": 261.82,
        "transmits": 12.75,
        "system calls": 31.75,
        "function calls": 10058,
        "peak kilobytes": 394.543,
    },
    ("one topic", "qh3"): {
        "datagrams": 40.25,
        "kilobytes": 261.934,
        "transmits": 11.5,
        "system calls": 32.25,
        "function calls": 8872.75,
        "peak kilobytes": 186.35,
    },
    ("100 topics", "aioquic"): {
        "datagrams": 45.75,
        "kilobytes": 288.649,
        "transmits": 20.25,
        "system calls": 42.75,
        "function calls": 30593.2,
        "peak kilobytes": 335.014,
    },
    ("100 topics", "qh3"): {
        "datagrams": 42.25,
        "kilobytes": 288.447,
        "transmits": 11.5,
        "system calls": 36.25,
        "function calls": 29136.2,
        "peak kilobytes": 210.534,
    },
    ("fan-out to 10", "aioquic"): {
        "datagrams": 245,
        "kilobytes": 1442.45,
        "transmits": 156.5,
        "system calls": 280,
        "function calls": 48476.5,
        "peak kilobytes": 1484.11,
    },
    ("fan-out to 10", "qh3"): {
        "datagrams": 220,
        "kilobytes": 1441.62,
        "transmits": 71,
        "system calls": 163.5,
        "function calls": 36267.5,
        "peak kilobytes": 790.691,
    },
    ("requests", "aioquic"): {
        "datagrams": 4620,
        "kilobytes": 1266.9,
        "transmits": 6940,
        "system calls": 13710,
        "function calls": 1.42677e06,
        "peak kilobytes": 86.282,
    },
    ("requests", "qh3"): {
        "datagrams": 4220,
        "kilobytes": 1261.02,
        "transmits": 4270,
        "system calls": 12610,
        "function calls": 1.09751e06,
        "peak kilobytes": 81.638,
    },
    # written by `python -m tests.performance --write`: end
}
