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
"""Acknowledgements go by time, and change most counts a little: by half of these margins at most, the least of five
runs beside three other processes on two cores. All but the last, the most bytes that
Python holds at once in a round, are per thousand messages, of publisher, broker and subscribers together; a fan-out
counts messages published. Function calls are those of and out of quicbus' own code."""

MEASURED = {
    # written by `python -m tests.performance --write`: begin
    ("one topic", "aioquic"): {
        "datagrams": 35.5,
        "kilobytes": 261.776,
        "transmits": 13,
        "system calls": 27.75,
        "function calls": 9649.25,
        "peak kilobytes": 394.299,
    },
    ("one topic", "qh3"): {
        "datagrams": 40.5,
        "kilobytes": 261.942,
        "transmits": 8.75,
        "system calls": 30.5,
        "function calls": 8980.5,
        "peak kilobytes": 236.502,
    },
    ("100 topics", "aioquic"): {
        "datagrams": 41.75,
        "kilobytes": 288.46,
        "transmits": 11.25,
        "system calls": 28,
        "function calls": 28983.8,
        "peak kilobytes": 502.426,
    },
    ("100 topics", "qh3"): {
        "datagrams": 42.5,
        "kilobytes": 288.454,
        "transmits": 9.25,
        "system calls": 34.5,
        "function calls": 28479.8,
        "peak kilobytes": 197.082,
    },
    ("fan-out to 10", "aioquic"): {
        "datagrams": 220.5,
        "kilobytes": 1441.74,
        "transmits": 92,
        "system calls": 183.5,
        "function calls": 41483,
        "peak kilobytes": 1566.42,
    },
    ("fan-out to 10", "qh3"): {
        "datagrams": 220,
        "kilobytes": 1441.63,
        "transmits": 44,
        "system calls": 156,
        "function calls": 35686.5,
        "peak kilobytes": 785.539,
    },
    ("requests", "aioquic"): {
        "datagrams": 4070,
        "kilobytes": 1243.61,
        "transmits": 5900,
        "system calls": 11590,
        "function calls": 1.00841e06,
        "peak kilobytes": 80.955,
    },
    ("requests", "qh3"): {
        "datagrams": 4020,
        "kilobytes": 1253.5,
        "transmits": 4450,
        "system calls": 10930,
        "function calls": 915710,
        "peak kilobytes": 74.1,
    },
    # written by `python -m tests.performance --write`: end
}
