"""What `quicbus broker` prints when it is ready and when it has stopped, for people and as JSON lines."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quicbus.settings import default_data_dir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus_broker.broker import Broker

__all__ = ["facts_of", "plain", "print_json", "print_ready", "where"]

_JSON_FACTS = ("url", "node", "name", "mode", "advertised", "seeds", "entered")


def facts_of(node: Broker) -> dict[str, Any]:
    """Return what is said of a broker that is ready; JSON knows all of it."""
    path = node.credential_path
    return {
        "url": node.url,
        "node": node.node_id.hex(),
        "name": node.name,
        "mesh": node.mesh,
        "mode": node.settings.mode,
        "advertised": list(node.advertised),
        "seeds": list(node.settings.seed),
        "entered": node.entered,
        "engine": node.engine,
        "data_dir": str(node.data_dir),
        "credential": None if path is None else str(path),
    }


def print_ready(facts: Mapping[str, Any], *, as_json: bool, workers: Sequence[Mapping[str, Any]] = ()) -> None:
    """`workers`: the facts of each, where the broker is several; `facts` are then those of the whole."""
    if as_json:
        more = {"workers": [_worker_facts(each) for each in workers]} if workers else {}
        print_json(event="ready", **{key: facts[key] for key in _JSON_FACTS}, **more)
        return
    rows = {
        "url": facts["url"],
        "node": f"{facts['name']} ({facts['node']})",
        "mesh": facts["mesh"],
        "mode": facts["mode"],
        "advertised": ", ".join(facts["advertised"]) or f"nothing: {_why_unadvertised(facts)}",
        "seeds": ", ".join(facts["seeds"]) or "none",
        "engine": facts["engine"],
        "data folder": facts["data_dir"],
        "credential": facts["credential"],
        "try it": f"quicbus sub 'sensors/#'{where(facts)}",
        "": f"quicbus pub sensors/kitchen 21.5{where(facts)}",
    }
    if workers:
        del rows["node"]
        rows = {"url": rows["url"], **_worker_rows(workers), **rows}
    if facts["entered"]:
        click.echo(facts["entered"])
    click.echo(click.style("quicbus broker is ready", bold=True) + "; Ctrl-C stops it")
    for key, value in rows.items():
        click.echo(f"  {key:<13}{value}")


def where(facts: Mapping[str, Any]) -> str:
    """Return the options that a command on this machine needs to reach the broker; none where the defaults do."""
    url = "" if facts["url"] == "quic://localhost:4433" else f" --url {facts['url']}"
    data_dir = facts["data_dir"]
    return url if Path(data_dir) == default_data_dir() else f"{url} --data-dir {shlex.quote(data_dir)}"


def print_json(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields, default=_plain) + "\n")
    sys.stdout.flush()


def plain(value: Any) -> Any:
    """Return statistics as what JSON knows."""
    return json.loads(json.dumps(value, default=_plain))


def _worker_facts(worker: Mapping[str, Any]) -> dict[str, Any]:
    return {key: worker[key] for key in ("node", "name", "pid", "advertised", "data_dir")}


def _worker_rows(workers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {
        f"worker {number}": f"{each['name']} ({each['node']}) at {', '.join(each['advertised']) or 'no address'}"
        for number, each in enumerate(workers, 1)
    }


def _why_unadvertised(facts: Mapping[str, Any]) -> str:
    return "this node only dials" if facts["mode"] == "client" else "no network interface has an address yet"


def _plain(value: object) -> dict[str, object]:
    """Return records of statistics, and the read-only mappings in them, as what JSON knows."""
    if isinstance(value, Mapping):
        return dict(value)
    assert dataclasses.is_dataclass(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
