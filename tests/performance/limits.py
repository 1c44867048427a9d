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
        "datagrams": 40.25,
        "kilobytes": 261.941,
        "transmits": 18.5,
        "system calls": 37,
        "function calls": 10412,
        "peak kilobytes": 289.424,
    },
    ("one topic", "qh3"): {
        "datagrams": 40.25,
        "kilobytes": 261.935,
        "transmits": 8.5,
        "system calls": 28.5,
        "function calls": 9125.5,
        "peak kilobytes": 186.926,
    },
    ("100 topics", "aioquic"): {
        "datagrams": 46,
        "kilobytes": 288.641,
        "transmits": 20.5,
        "system calls": 37.75,
        "function calls": 30152.2,
        "peak kilobytes": 305.48,
    },
    ("100 topics", "qh3"): {
        "datagrams": 42.25,
        "kilobytes": 288.447,
        "transmits": 8.25,
        "system calls": 32.5,
        "function calls": 28688.5,
        "peak kilobytes": 198.707,
    },
    ("fan-out to 10", "aioquic"): {
        "datagrams": 243.5,
        "kilobytes": 1442.41,
        "transmits": 147,
        "system calls": 244.5,
        "function calls": 46621,
        "peak kilobytes": 1396.07,
    },
    ("fan-out to 10", "qh3"): {
        "datagrams": 220,
        "kilobytes": 1441.62,
        "transmits": 44,
        "system calls": 155.5,
        "function calls": 36766.5,
        "peak kilobytes": 788.052,
    },
    ("requests", "aioquic"): {
        "datagrams": 4880,
        "kilobytes": 1280.35,
        "transmits": 5900,
        "system calls": 9770,
        "function calls": 1.27484e06,
        "peak kilobytes": 85.506,
    },
    ("requests", "qh3"): {
        "datagrams": 4020,
        "kilobytes": 1254.44,
        "transmits": 4020,
        "system calls": 8050,
        "function calls": 965580,
        "peak kilobytes": 76.417,
    },
    # written by `python -m tests.performance --write`: end
}
