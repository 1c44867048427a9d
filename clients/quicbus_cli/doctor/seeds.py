"""Checks of the other nodes that the broker on this machine dials: the seeds in its settings, and members.json."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from quicbus.client.urls import BrokerUrl, parse_url
from quicbus.exceptions import InvalidSetting
from quicbus_cli.doctor.datagrams import Outcome, probe
from quicbus_cli.doctor.finding import Finding, failure, ok, skipped, warning
from quicbus_cli.doctor.names import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["MEMBERS_FILE", "check_seeds", "reach", "reach_all", "read_members"]

MEMBERS_FILE = "members.json"
MAX_NODES = 32
"""That are tried of a list: whoever is first in it was seen last."""
MAX_FILE_SIZE = 1024 * 1024


async def reach_all(nodes: Mapping[str, Sequence[str]], timeout_s: float) -> dict[str, str]:
    """Probe nodes by name and addresses (`HOST:PORT`) at once; return why one is not reached, or an empty text."""
    names = list(nodes)[:MAX_NODES]
    whys = await asyncio.gather(*(_reach_any(nodes[name], timeout_s) for name in names))
    return dict(zip(names, whys, strict=True))


async def _reach_any(addresses: Sequence[str], timeout_s: float) -> str:
    whys = await asyncio.gather(*(reach(address, timeout_s) for address in addresses))
    return "" if "" in whys else next(iter(whys), "no address is known")


async def reach(address: str, timeout_s: float) -> str:
    """Return why no QUIC listener is reached at `HOST[:PORT]`, else an empty text."""
    try:
        url: BrokerUrl = parse_url(f"quic://{address}")
    except InvalidSetting:
        return "it is no HOST:PORT"
    addresses, why = await resolve(url, timeout_s)
    if not addresses:
        return why
    answers = await asyncio.gather(*(probe(one, timeout_s) for one in addresses))
    if any(answer.outcome is Outcome.QUIC for answer in answers):
        return ""
    return answers[0].reason or answers[0].outcome.value


def check_seeds(check: str, reached: Mapping[str, str], *, are_needed: bool) -> Finding:
    """Judge what `reach_all` returned. `are_needed`: they are settings, and not merely remembered."""
    if not reached:
        return skipped(check, "none are set" if are_needed else "none are remembered")
    lost = {name: why for name, why in reached.items() if why}
    count = f"{len(reached) - len(lost)} of {len(reached)} answer from here"
    if not lost:
        return ok(check, f"{count}: {', '.join(reached)}")
    whys = "; ".join(f"{name}: {why}" for name, why in lost.items())
    if len(lost) == len(reached) and are_needed:
        return failure(check, f"{count}; {whys}", "one that answers is enough: start it, or open UDP on the way to it")
    return warning(
        check, f"{count}; {whys}", "no harm while others answer; `quicbus doctor quic://HOST:PORT` tells more"
    )


def read_members(folder: Path, mesh: str) -> tuple[dict[str, list[str]], str]:
    """Return the nodes that a broker in this folder remembers, by name and id, or why they can't be read."""
    try:
        with (folder / MEMBERS_FILE).open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"{folder / MEMBERS_FILE} can't be read: {error.strerror or error}"
    try:
        content = json.loads(data)
        if mesh and content["mesh"] != mesh:
            return {}, ""
        return {_shown(one): [str(address) for address in one["addresses"]] for one in content["members"]}, ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}, f"{folder / MEMBERS_FILE} is damaged, a broker ignores it"


def _shown(member: Mapping[str, object]) -> str:
    return f"{member.get('name') or 'node'} {str(member['node'])[:8]}"
