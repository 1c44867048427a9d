"""Looks for known vulnerabilities in what requirements.lock names: `make check-deps`.

pip-audit does the asking. It ends with success also when it could ask about nothing, so its report is read here: what
was not audited is a failure, told apart from one that was found. Exit codes: 0 all audited, nothing known; 1 something
is known; 2 not all could be audited.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["judge", "main"]

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"


def main(pip_audit: str, service: str) -> int:
    """Run pip-audit on the lock file, and print what it means."""
    command = [pip_audit, "--requirement", str(LOCK), "--no-deps", "--disable-pip", "--vulnerability-service", service]
    command += ["--format", "json", "--progress-spinner", "off"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (the Makefile names it)
    code, lines = judge(ended.stdout, ended.stderr, service)
    print("\n".join(lines))
    return code


def judge(stdout: str, stderr: str, service: str) -> tuple[int, list[str]]:
    """Return the exit code and what to say about a report of pip-audit in JSON."""
    try:
        dependencies: list[dict[str, Any]] = json.loads(stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = " ".join(stderr.split())[-300:] or "it said nothing"
        return 2, [f"NOT AUDITED: pip-audit made no report; is the advisory database ({service}) reachable? {said}"]
    skipped = [f"{one['name']}: {one['skip_reason']}" for one in dependencies if "skip_reason" in one]
    audited = len(dependencies) - len(skipped)
    known = [
        f"{one['name']} {one['version']}: {vulnerability['id']}, mended in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for one in dependencies
        for vulnerability in one.get("vulns", ())
    ]
    if known:
        return 1, ["VULNERABLE:", *known, f"{audited} of {len(dependencies)} dependencies were audited"]
    if not audited:
        why = f"the advisory database ({service}) answered about none of {len(dependencies)} dependencies"
        return 2, [f"NOT AUDITED: {why}: it can't be reached from here; nothing is known, run this where it can be"]
    if skipped:
        return 2, [f"NOT AUDITED, {len(skipped)} of {len(dependencies)} dependencies:", *skipped]
    return 0, [f"{audited} dependencies audited by {service}: no known vulnerability"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
