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
        "datagrams": 35.75,
        "kilobytes": 261.789,
        "transmits": 11.75,
        "system calls": 31,
        "function calls": 9999,
        "peak kilobytes": 340.988,
    },
    ("one topic", "qh3"): {
        "datagrams": 40.25,
        "kilobytes": 261.935,
        "transmits": 8.25,
        "system calls": 32.25,
        "function calls": 8793.5,
        "peak kilobytes": 235.823,
    },
    ("100 topics", "aioquic"): {
        "datagrams": 45,
        "kilobytes": 288.622,
        "transmits": 19,
        "system calls": 41.75,
        "function calls": 30410.5,
        "peak kilobytes": 357.116,
    },
    ("100 topics", "qh3"): {
        "datagrams": 42.25,
        "kilobytes": 288.447,
        "transmits": 8.25,
        "system calls": 34.5,
        "function calls": 28972.5,
        "peak kilobytes": 201.495,
    },
    ("fan-out to 10", "aioquic"): {
        "datagrams": 222.5,
        "kilobytes": 1441.72,
        "transmits": 110,
        "system calls": 242.5,
        "function calls": 45185.5,
        "peak kilobytes": 1406.53,
    },
    ("fan-out to 10", "qh3"): {
        "datagrams": 220,
        "kilobytes": 1441.63,
        "transmits": 44,
        "system calls": 163.5,
        "function calls": 35724.5,
        "peak kilobytes": 788.98,
    },
    ("requests", "aioquic"): {
        "datagrams": 4590,
        "kilobytes": 1263.15,
        "transmits": 5610,
        "system calls": 13750,
        "function calls": 1.13548e06,
        "peak kilobytes": 83.446,
    },
    ("requests", "qh3"): {
        "datagrams": 4000,
        "kilobytes": 1250.45,
        "transmits": 4000,
        "system calls": 12000,
        "function calls": 957830,
        "peak kilobytes": 76.698,
    },
    # written by `python -m tests.performance --write`: end
}
