"""The table of the regression guard: what was measured, and by how much a count may be over it.

`python -m tests.performance --write` measures it anew (medians of five runs) once a change is worth its price.
"""

from __future__ import annotations

__all__ = ["MARGINS", "MEASURED"]

MARGINS = {
    "datagrams": 0.20,
    "kilobytes": 0.02,
    "transmits": 0.60,
    "system calls": 0.30,
    "function calls": 0.15,
    "peak kilobytes": 0.50,
}
"""What goes by time changes most counts a little, on clocks that go slowly, too: within these margins the least of five
runs stayed beside eight other processes on two cores. All but the last, the most bytes that
Python holds at once in a round, are per thousand messages, of publisher, broker and subscribers together; a fan-out
counts messages published. Function calls are those of and out of quicbus' own code."""

MEASURED = {
    # written by `python -m tests.performance --write`: begin
    ("one topic", "aioquic"): {
        "datagrams": 36.5,
        "kilobytes": 261.805,
        "transmits": 13.5,
        "system calls": 28.5,
        "function calls": 9627.5,
        "peak kilobytes": 393.518,
    },
    ("one topic", "qh3"): {
        "datagrams": 41.25,
        "kilobytes": 261.967,
        "transmits": 11,
        "system calls": 35.25,
        "function calls": 8966,
        "peak kilobytes": 236.598,
    },
    ("100 topics", "aioquic"): {
        "datagrams": 41.75,
        "kilobytes": 288.452,
        "transmits": 14,
        "system calls": 29,
        "function calls": 28789.8,
        "peak kilobytes": 503.342,
    },
    ("100 topics", "qh3"): {
        "datagrams": 42.75,
        "kilobytes": 288.462,
        "transmits": 10.5,
        "system calls": 36.25,
        "function calls": 28480.5,
        "peak kilobytes": 197.242,
    },
    ("fan-out to 10", "aioquic"): {
        "datagrams": 196.5,
        "kilobytes": 1440.86,
        "transmits": 58,
        "system calls": 152.5,
        "function calls": 41095.5,
        "peak kilobytes": 1630.92,
    },
    ("fan-out to 10", "qh3"): {
        "datagrams": 220,
        "kilobytes": 1441.63,
        "transmits": 48.5,
        "system calls": 159.5,
        "function calls": 35803,
        "peak kilobytes": 785.555,
    },
    ("requests", "aioquic"): {
        "datagrams": 4100,
        "kilobytes": 1244.19,
        "transmits": 5900,
        "system calls": 11980,
        "function calls": 993630,
        "peak kilobytes": 81.092,
    },
    ("requests", "qh3"): {
        "datagrams": 4000,
        "kilobytes": 1253.79,
        "transmits": 4550,
        "system calls": 11280,
        "function calls": 916660,
        "peak kilobytes": 74.136,
    },
    # written by `python -m tests.performance --write`: end
}
