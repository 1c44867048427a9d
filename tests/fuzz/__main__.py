"""Run the targets under atheris: `python -m tests.fuzz [TARGET...] [--seconds 15]`, which is `make fuzz`.

Each target runs in a process of its own, at low priority, from its corpus. What it finds is printed, and put into the
corpus, where `make test` sees it; what covers something new is put there too, as far as there is room.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz import corpus

MAX_INPUTS = 60
"""Of one target, of those that cover something that no shorter one does."""
MAX_TARGET_SIZE = 12_000
INPUT_TIMEOUT_S = 10
MEMORY_MB = 2048


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="all of them unless named")
    parser.add_argument("--seconds", type=int, default=15, help="for each target")
    parser.add_argument("--seeds", action="store_true", help="add the seeds to the corpus, and run nothing")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return _run_here(arguments.child[0], arguments.child[1:])
    from tests.fuzz.catalogue import TARGETS  # after the choice: a child imports it instrumented

    names = arguments.targets or sorted(TARGETS)
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"no target is called {', '.join(unknown)}; there are {', '.join(sorted(TARGETS))}")
    if arguments.seeds:
        for name in names:
            corpus.save(name, [*corpus.load(name), *TARGETS[name].seeds()])
        return 0
    seeds = {name: list(TARGETS[name].seeds()) for name in names}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        held = list(pool.map(lambda name: _fuzz(name, seeds[name], arguments.seconds), names))
    found = [name for name, is_held in zip(names, held, strict=True) if not is_held]
    print(f"{len(names)} targets, findings in: {', '.join(found) or 'none'}")
    return 1 if found else 0


def _fuzz(name: str, seeds: list[bytes], seconds: int) -> bool:
    """Return whether the target held."""
    with tempfile.TemporaryDirectory() as folder:
        known, new, merged, findings = (Path(folder, part) for part in ("known", "new", "merged", "findings"))
        for path in (known, new, merged, findings):
            path.mkdir()
        for number, data in enumerate([*corpus.load(name), *seeds]):
            (known / f"{number:05}").write_bytes(data)
        code, output = _child(name, f"-max_total_time={seconds}", f"-artifact_prefix={findings}/", str(new), str(known))
        if code:
            print(output)
        crashes = [path.read_bytes() for path in sorted(findings.iterdir())]
        for data in crashes:
            print(f"{name}: found {data!r}")
        if code == 0:
            _child(name, "-merge=1", str(merged), str(known), str(new))
            kept = sorted((path.read_bytes() for path in merged.iterdir()), key=lambda data: (len(data), data))
            corpus.save(name, _as_fits(kept))
        else:
            corpus.keep(name, crashes)
        print(f"{name}: {'holds' if code == 0 else 'FAILS'}, {len(corpus.load(name))} inputs", flush=True)
        return code == 0


def _as_fits(inputs: list[bytes]) -> list[bytes]:
    """Return some of all sizes: the longest go deepest."""
    kept: list[bytes] = []
    size = 0
    step = max(1.0, len(inputs) / MAX_INPUTS)
    for number in range(min(len(inputs), MAX_INPUTS)):
        data = inputs[-1 - int(number * step)]
        if size + len(data) * 4 // 3 <= MAX_TARGET_SIZE:
            size += len(data) * 4 // 3 + 2
            kept.append(data)
    return kept


def _child(name: str, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.fuzz", "--child", name, "-verbosity=0", *arguments]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode(errors="replace")


def _run_here(name: str, arguments: list[str]) -> int:
    import atheris  # the extra `fuzz`; not where the corpus is replayed

    if hasattr(os, "nice"):
        os.nice(19)
    with atheris.instrument_imports(include=["quicbus", "quicbus_broker"]):
        from tests.fuzz.catalogue import TARGETS
    target = TARGETS[name]
    options = [f"-max_len={target.max_size}", f"-timeout={INPUT_TIMEOUT_S}", f"-rss_limit_mb={MEMORY_MB}"]
    # Merging starts the program again, by a shell: it takes what stands here for the name of the program.
    again = shlex.join([sys.executable, "-m", "tests.fuzz", "--child", name])
    atheris.Setup([again, *options, *arguments], target)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
