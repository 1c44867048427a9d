"""The first moments of the `quicbus` command, before it can do anything."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

INTERRUPTED_WHILE_LOADING = """
import os, signal, sys
from quicbus_cli.entry import main

class Slow:
    def find_spec(self, name, path, target=None):
        if name == "quicbus_cli.main":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in its background without it
sys.meta_path.insert(0, Slow())
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there a process cannot interrupt itself alone")
def test_ctrl_c_while_the_modules_load_ends_it_without_a_traceback() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_LOADING], capture_output=True, text=True, check=False, timeout=30
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


def test_the_module_that_the_command_begins_with_loads_nothing_else_of_it() -> None:
    code = "import sys, quicbus_cli.entry; print({'click', 'quicbus', 'asyncio'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout == "set()\n"
