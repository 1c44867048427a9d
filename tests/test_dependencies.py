"""The lock file covers what pyproject.toml asks for, and an audit that did not happen is not taken for a good one."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from tools.check_dependencies import judge

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WANTED = [*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]
LOCKED = [Requirement(line) for line in re.findall(r"^[a-z].*", (ROOT / "requirements.lock").read_text(), re.MULTILINE)]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("wanted", [Requirement(one) for one in WANTED], ids=str)
def test_every_dependency_is_locked_at_a_version_that_is_allowed(wanted: Requirement) -> None:
    versions = [next(iter(one.specifier)).version for one in LOCKED if normal(one.name) == normal(wanted.name)]
    assert versions, f"{wanted} is not in requirements.lock; run `make lock`"
    assert any(wanted.specifier.contains(version) for version in versions), f"{versions}; run `make lock`"


def report(*dependencies: Mapping[str, object]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


GOOD = {"name": "click", "version": "8.1", "vulns": []}
BAD = {"name": "rich", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": []}]}
SKIPPED = {"name": "qh3", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("stdout", "code", "said"),
    [
        (report(GOOD), 0, "1 dependencies audited by pypi: no known vulnerability"),
        (report(GOOD, BAD, SKIPPED), 1, "rich 1.0: PYSEC-1, mended in 1.1"),
        (report(GOOD, SKIPPED), 2, "NOT AUDITED, 1 of 2 dependencies:"),
        (report(SKIPPED, SKIPPED), 2, "can't be reached from here"),
        ("", 2, "NOT AUDITED: pip-audit made no report"),
    ],
)
def test_only_a_whole_audit_without_a_finding_passes(stdout: str, code: int, said: str) -> None:
    found, lines = judge(stdout, "ConnectionError", "pypi")
    assert found == code
    assert any(said in line for line in lines), lines
