"""Measure the counts of the regression guard: `python -m tests.performance`; with `--write` into `limits.py`."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from statistics import median

import pytest

from tests.conftest import ENGINES
from tests.performance import limits
from tests.performance.cases import CASES, Case, measure

RUNS = 5
MARK = "    # written by `python -m tests.performance --write`: "


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.performance", description=__doc__)
    parser.add_argument("--write", action="store_true", help="change the table of limits.py")
    arguments = parser.parse_args()
    lines = []
    for name, case in CASES.items():
        for engine in ENGINES:
            counts = _middle(case, engine)
            lines.append(f'    ("{name}", "{engine}"): {{')
            lines += [f'        "{count}": {value:.6g},' for count, value in counts.items()]
            lines.append("    },")
            print(*lines[-2 - len(counts) :], sep="\n", flush=True)
    if arguments.write:
        path = Path(limits.__file__)
        before, _, rest = path.read_text().partition(MARK + "begin\n")
        after = rest.partition(MARK + "end\n")[2]
        path.write_text("\n".join([f"{before}{MARK}begin", *lines, f"{MARK}end\n{after}"]))


def _middle(case: Case, engine: str) -> dict[str, float]:
    runs = []
    for _ in range(RUNS):
        with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory() as folder:
            runs.append(asyncio.run(measure(case, engine, Path(folder) / "data", monkeypatch)))
    return {name: median(run[name] for run in runs) for name in runs[0]}


if __name__ == "__main__":
    main()
