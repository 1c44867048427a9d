"""`python -m benchmarks.wide_area`: publish/subscribe over a lossy wide-area path, quicbus beside its peers.

`--check` measures the path itself. Needs Linux and root.
"""

from __future__ import annotations

import argparse
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.wide_area import namespaces
from benchmarks.wide_area.check import check_path
from quicbus.process import Interrupted, ended_by_signals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure the path with plain sockets")
    parser.parse_args()
    console = Console(highlight=False)
    if (missing := namespaces.why_not_here()) is not None:
        console.print(f"skipped: {missing}")
        return 1
    with ended_by_signals():
        try:
            return check(console)
        except Interrupted as interrupted:
            return 128 + interrupted.signal


def check(console: Console) -> int:
    findings = check_path()
    shown = Table(box=box.SIMPLE)
    for heading in ("", "wanted", "measured", ""):
        shown.add_column(heading)
    for finding in findings:
        shown.add_row(finding.name, finding.wanted, finding.measured, "ok" if finding.is_good else "NOT AS WANTED")
    console.print(shown)
    return 0 if all(finding.is_good for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
