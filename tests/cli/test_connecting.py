"""What is told while no broker answers: at a terminal what is waited for, in the end why not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import DataFolder
from quicbus_cli import connecting
from tests.cli.in_process import Here

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = ("pub", "quic://127.0.0.1:9", "a", "x", "--connect-timeout", "0.3")


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    DataFolder.open(tmp_path / "data", may_create_authority=True).close()
    monkeypatch.setattr(connecting, "PATIENCE_S", 0.01)
    return Here(capsys, tmp_path / "data", monkeypatch)


def test_at_a_terminal_it_is_told_what_is_waited_for(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert here.run(*NOBODY) == 1
    waiting, why = here.stderr.splitlines()
    assert waiting == "quicbus: no answer from quic://127.0.0.1:9 yet; tried for 0.3 s (--connect-timeout)"
    assert "could not connect" in why


def test_programs_are_told_only_why_not(here: Here) -> None:
    assert "could not connect" in here.refusal(*NOBODY)
