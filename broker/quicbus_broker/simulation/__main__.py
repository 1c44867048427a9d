"""`python -m quicbus_broker.simulation`: one world again, many worlds, or all the measurements."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from quicbus_broker.simulation.gates import gates_of
from quicbus_broker.simulation.measurements import Job, Results, jobs_of
from quicbus_broker.simulation.report import page, plot
from quicbus_broker.simulation.scenarios import Failure, run

_console = Console(stderr=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, help="Run the world of this seed, and nothing else.")
@click.option("--trace", is_flag=True, help="With --seed: print everything that happens in it.")
@click.option("--seeds", type=click.IntRange(0), default=2000, show_default=True, help="How many random worlds.")
@click.option(
    "--largest",
    type=click.IntRange(0),
    default=10_000,
    show_default=True,
    help="Nodes of the largest mesh; 0: worlds only.",
)
@click.option("--only", default="", help="Of the measurements, those whose name holds this.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep what is done here, and take it from here."
)
@click.option(
    "--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processes at once."
)
@click.option(
    "--write",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write simulation.md and its plots here.",
)
def main(
    seed: int | None, trace: bool, seeds: int, largest: int, only: str, keep: Path | None, jobs: int, write: Path | None
) -> None:
    """Prove the mesh by simulation. Exits with 1 where a world goes wrong or a demand is not reached."""
    if seed is not None:
        sys.exit(_run_one(seed, trace))
    wanted = [job for job in jobs_of(seeds, largest) if only in job.label]
    results = _run_all(wanted, jobs, keep)
    for failure in results.failures:
        _console.print(f"[red]seed {failure.seed}[/]: {failure}")
    gates = gates_of(results)
    for gate in gates:
        mark = "[green]yes[/]" if gate.is_reached else "[red]no[/] "
        _console.print(f"{mark} {gate.what}: {gate.measured} (wanted: {gate.wanted})")
    if write is not None:
        write.mkdir(parents=True, exist_ok=True)
        (write / "simulation.md").write_text(page(results))
        plot(results, write / "simulation")
        _console.print(f"written to {write / 'simulation.md'}")
    else:
        print(page(results))
    sys.exit(0 if all(gate.is_reached for gate in gates) else 1)


def _run_one(seed: int, trace: bool) -> int:
    try:
        outcome = run(seed, trace=print if trace else None)
    except Failure as failure:
        _console.print(f"[red]seed {seed}[/]: {failure}")
        return 1
    _console.print(f"[green]seed {seed}[/]: {outcome}")
    return 0


def _run_all(wanted: list[Job], workers: int, keep: Path | None) -> Results:
    results = Results()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console) as progress:
        bar = progress.add_task("simulating", total=len(wanted))
        missing = []
        for job in wanted:
            kept = _kept(job, keep)
            if kept is not None and kept.exists():
                results.add(job, pickle.loads(kept.read_bytes()))  # noqa: S301 (this command wrote the file)
                progress.advance(bar)
            else:
                missing.append(job)
        # A process for each job, whose memory is given back. (Executors with `max_tasks_per_child` hang in 3.11.)
        with multiprocessing.Pool(workers, maxtasksperchild=1) as pool:
            for index, result in pool.imap_unordered(_run_indexed, enumerate(missing)):
                job = missing[index]
                results.add(job, result)
                if (kept := _kept(job, keep)) is not None:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_bytes(pickle.dumps(result))
                progress.console.print(f"done: {job.label}")
                progress.advance(bar)
    results.sort()
    return results


def _run_indexed(indexed: tuple[int, Job]) -> tuple[int, Any]:
    return indexed[0], indexed[1].run()


def _kept(job: Job, keep: Path | None) -> Path | None:
    return keep / (job.label.replace(" ", "_").replace("%", "").replace(",", "") + ".pickle") if keep else None


if __name__ == "__main__":
    main()
