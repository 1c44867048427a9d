"""Running a command in this very process: a fraction of the time that a process of its own takes to start."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from quicbus_cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ["Here"]


class Here:
    """`quicbus` with a data folder; what it printed is in `stdout` and `stderr`."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUICBUS_DATA_DIR", str(folder))
        monkeypatch.chdir(folder.parent)
        self._capsys = capsys
        self.folder = folder
        self.stdout = self.stderr = ""

    def run(self, *arguments: str) -> int:
        """Run the command and return its exit code."""
        self._capsys.readouterr()
        code = main(arguments)
        self.stdout, self.stderr = self._capsys.readouterr()
        return code

    def json(self, *arguments: str) -> Any:
        """Run the command with --json, see it succeed, and return what it printed."""
        assert self.run(*arguments, "--json") == 0, self.stderr
        return json.loads(self.stdout)

    def refusal(self, *arguments: str, code: int = 1) -> str:
        """Run the command, see it fail, and return its one line."""
        assert self.run(*arguments) == code, self.stdout
        assert self.stderr.count("\n") == 1, self.stderr
        return self.stderr
