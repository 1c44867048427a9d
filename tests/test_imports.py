"""What is loaded before anything is done: start-up is counted in modules, since times depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

OF_ENGINES = {"aioquic", "qh3", "cryptography", "uvloop"}
OF_COMMANDS = {"click", "rich", "importlib.metadata"}
OF_BROKERS = {"quicbus_broker", "psutil", "sortedcontainers", "tomllib", "platformdirs"}
OF_MACHINES = {"zeroconf", "matplotlib", "numpy", "multiprocessing", "sqlite3", "http.client", "xml"}
"""Of extras, and of the standard library what takes long."""


def loaded_by(code: str) -> set[str]:
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(json.loads(ended.stdout.splitlines()[-1]))


VERSION = """
import sys
sys.argv = ["quicbus", "--version"]
from quicbus_cli.main import main
main()
"""
BROKER = """
import sys
sys.argv = ["quicbus", "broker", "--help"]
from quicbus_cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("code", "left_out", "own_at_most"),
    [
        ("import quicbus", OF_ENGINES | OF_COMMANDS | OF_BROKERS | OF_MACHINES, 60),
        (VERSION, OF_ENGINES | OF_BROKERS | OF_MACHINES | {"rich"}, 65),
        (BROKER, OF_MACHINES | {"qh3", "uvloop", "rich"}, 320),
    ],
    ids=["import", "version", "broker"],
)
def test_start_up_loads_only_what_it_needs(code: str, left_out: set[str], own_at_most: int) -> None:
    loaded = loaded_by(code)
    assert loaded & left_out == set()
    own = sorted(name for name in loaded if name.partition(".")[0].startswith("quicbus"))
    assert len(own) <= own_at_most, own
