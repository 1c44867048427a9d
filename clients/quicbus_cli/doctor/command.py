"""`quicbus doctor`: runs the checks, prints what they found, and fails when one of them failed."""

from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import click

from quicbus.commands import settings_of
from quicbus.exceptions import InvalidSetting
from quicbus.logs import harmless
from quicbus.process import run
from quicbus_cli.connecting import connection_options, load_client_settings, split_urls
from quicbus_cli.doctor.finding import State, worst

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quicbus_cli.doctor.examination import NodeSettings, Section
    from quicbus_cli.doctor.finding import Finding

__all__ = ["doctor"]

_STYLES = {State.OK: "green", State.WARNING: "yellow", State.FAILURE: "red", State.SKIPPED: "bright_black"}


@click.command(short_help="Look for what is wrong, and say what to do.")
@click.argument("arguments", nargs=-1, metavar="[URL]")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True, metavar="S")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object with all findings.")
@connection_options
def doctor(arguments: tuple[str, ...], timeout: float, as_json: bool, **options: Any) -> int:
    """Look at this machine, its data folder and credential, and at the way to a broker and its mesh.

    Changes nothing. Without a URL the broker that the settings name is looked at, else the one on this machine.
    --timeout is for each thing that is waited for. Exit code 1 when something failed; warnings are no failure.
    """
    urls, rest = split_urls(arguments)
    if rest:
        raise click.UsageError(f"{rest[0]!r} is not a URL: quic://HOST:PORT", click.get_current_context())
    settings = load_client_settings(options, urls)
    from quicbus_cli.doctor.examination import Examination, examine  # the engines take a while to load

    sections = run(examine(Examination(settings, _node_settings(options), timeout)))
    if as_json:
        click.echo(json.dumps(report(sections), indent=2, ensure_ascii=False))
    else:
        for line in shown(sections):
            click.echo(line)
    return 1 if worst(_all(sections)) is State.FAILURE else 0


def report(sections: Sequence[Section]) -> dict[str, Any]:
    """Return what --json prints."""
    findings = [{"section": section.title, **one.as_dict()} for section in sections for one in section.findings]
    return {"state": worst(_all(sections)).value, "findings": findings}


def shown(sections: Sequence[Section]) -> Iterator[str]:
    """Yield the lines for people: one a finding, its remedy beneath."""
    width = max((len(finding.check) for finding in _all(sections)), default=0)
    for section in sections:
        yield click.style(harmless(section.title), bold=True)
        for finding in section.findings:
            state = click.style(f"{finding.state.value:<8}", fg=_STYLES[finding.state])
            yield f"  {state} {finding.check:<{width}}  {harmless(finding.seen)}"
            if finding.remedy:
                yield f"  {'':8} {'':{width}}  -> {harmless(finding.remedy)}"
    counts = Counter(finding.state for finding in _all(sections))
    words = {State.FAILURE: "failed", State.WARNING: "warnings", State.SKIPPED: "skipped", State.OK: "ok"}
    yield ", ".join(f"{counts[state]} {word}" for state, word in words.items())


def _all(sections: Sequence[Section]) -> list[Finding]:
    return [finding for section in sections for finding in section.findings]


def _node_settings(options: dict[str, Any]) -> NodeSettings:
    """Return what a broker started here would read; the class is found by its entry point, as the command is."""
    from quicbus_cli.doctor.certificates import NodeFiles
    from quicbus_cli.doctor.examination import NodeSettings

    (point,) = entry_points(group="quicbus.settings", name="broker")
    try:
        settings = settings_of(point.load(), {"data_dir": options.get("data_dir")})
    except InvalidSetting as error:
        return NodeSettings(why_unknown=f"a broker would not start: {error}; correct it")
    files = None
    if settings.certificate is not None:
        files = NodeFiles(settings.certificate, settings.private_key, settings.authority)
    return NodeSettings(seed=settings.seed, max_datagram_size=settings.max_datagram_size, files=files)
