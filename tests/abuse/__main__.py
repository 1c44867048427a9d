"""`make abuse`: every attack with full strength on a broker of its own, for each engine, and a table of it all."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from quicbus.testing.launcher import LaunchError
from tests.abuse.arena import Arena, Outcome
from tests.abuse.attackers import ATTACKS
from tests.abuse.report import COLUMNS, document, row
from tests.abuse.verdict import after_strong
from tests.conftest import ENGINES


@click.command()
@click.option(
    "--seconds", default=10.0, show_default=True, help="How long each attack, and the quiet before it, takes."
)
@click.option("--engine", "engines", multiple=True, type=click.Choice(ENGINES), help="Of the broker. [all]")
@click.option("--only", multiple=True, type=click.Choice(list(ATTACKS)), help="Attacks to run. [all]")
@click.option("--write", type=click.Path(path_type=Path), help="File that gets the tables in Markdown.")
def main(seconds: float, engines: tuple[str, ...], only: tuple[str, ...], write: Path | None) -> None:
    """Attack brokers and tell what became of them; exit 1 where something did that must not."""
    console = Console()
    outcomes: list[Outcome] = []
    failures: list[str] = []
    for engine in engines or ENGINES:
        for name in only or ATTACKS:
            console.print(f"{engine}: {name} ({ATTACKS[name].about})", highlight=False)
            try:
                with Arena(engine, ATTACKS[name].options) as arena:
                    outcome = arena.attack(name, is_small=False, seconds=seconds, quiet_s=seconds)
            except (AssertionError, LaunchError) as error:
                failures.append(f"{engine}: {name}: {error}")
                continue
            outcomes.append(outcome)
            console.print("  " + " · ".join(row(outcome)[1:]), highlight=False, style="dim")
            failures += [f"{engine}: {name}: {each}" for each in after_strong(outcome, ATTACKS[name])]
    for engine in dict.fromkeys(outcome.engine for outcome in outcomes):
        table = Table(*figures(COLUMNS), title=f"broker on {engine}")
        for each in outcomes:
            if each.engine == engine:
                table.add_row(*figures(row(each)))
        console.print(table)
    if write is not None:
        write.write_text(document(outcomes, shlex.join(["python", "-m", "tests.abuse", *sys.argv[1:]])))
    for failure in failures:
        console.print(failure, style="red", highlight=False)
    sys.exit(1 if failures else 0)


def figures(cells: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out what was made and counted: it stands above, and a terminal has no room for it."""
    return (cells[0], *cells[2:-1])


if __name__ == "__main__":
    main()
