"""The README's Python examples run as they stand; what else it names, tests/test_documents.py looks at."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from quicbus.testing.launcher import BrokerProcess

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("quicbus ")
]
PRINTED = [
    "sensors/kitchen/temperature b'21.5' C from ",
    "144",
    "world by way of quic://127.0.0.1:",
    "tests by way of quic://127.0.0.1:",
]


def test_every_example_has_its_expectation() -> None:
    assert len(EXAMPLES) == len(PRINTED)


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_example_runs_as_it_stands(number: int, shared_broker: BrokerProcess, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(EXAMPLES[number])
    environment = {**shared_broker.environment, "QUICBUS_ENGINE": shared_broker.engine}
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(PRINTED[number])
    assert ended.stderr == ""


def test_first_commands_are_those_of_a_newcomer() -> None:
    assert README.index("make demo") < README.index("make test") < README.index("pip install '.[fast]'")
    assert COMMANDS[:3] == ["quicbus broker", "quicbus sub 'sensors/#'", "quicbus pub sensors/kitchen 21.5"]


def test_every_folder_in_the_layout_is_there() -> None:
    for name in re.findall(r"`([a-z_/]+/)`", README.partition("## Where things are")[2]):
        assert any((base / name).is_dir() for base in (ROOT, ROOT / "broker" / "quicbus_broker")), name
