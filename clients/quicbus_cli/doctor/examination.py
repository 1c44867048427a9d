"""Order of the checks: this machine, the data folder, the credential, then the way to each broker, and the broker."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quicbus.client.urls import parse_url
from quicbus.exceptions import InvalidSetting
from quicbus.settings import default_data_dir
from quicbus.transport.network import is_this_host
from quicbus_cli.doctor.broker import judge_conversation
from quicbus_cli.doctor.certificates import NodeFiles, look_at_credential, look_at_node
from quicbus_cli.doctor.conversation import converse
from quicbus_cli.doctor.datagrams import Outcome, probe
from quicbus_cli.doctor.finding import Finding, State, failure, skipped, split_remedy
from quicbus_cli.doctor.folder import look_at_folder
from quicbus_cli.doctor.machine import check_machine
from quicbus_cli.doctor.names import check_name, resolve
from quicbus_cli.doctor.network import check_path, check_udp, check_version, measure_path, sizes_for
from quicbus_cli.doctor.seeds import check_seeds, reach_all, read_members

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from quicbus.client.urls import BrokerUrl
    from quicbus.identity import Credential
    from quicbus.identity.trust import TrustStore
    from quicbus.settings import ClientSettings
    from quicbus.transport.connection import Address

__all__ = ["Examination", "NodeSettings", "Section", "examine"]


@dataclass(frozen=True, slots=True)
class Section:
    """Findings under one heading."""

    title: str
    findings: list[Finding]


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a broker on this machine would be told, where that can be read."""

    seed: tuple[str, ...] = ()
    max_datagram_size: int | None = None
    files: NodeFiles | None = None
    """Where its settings name them in place of the data folder's."""
    why_unknown: str = ""


@dataclass(slots=True)
class Examination:
    """What is looked at, and for how long a peer is waited for."""

    settings: ClientSettings
    node: NodeSettings = field(default_factory=NodeSettings)
    timeout_s: float = 3.0
    now: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))

    @property
    def folder(self) -> Path:
        return self.settings.data_dir or default_data_dir()


async def examine(given: Examination) -> list[Section]:
    """Look at everything, one after the other; raises nothing for what is found."""
    trust, here = _look_here(given)
    mesh = trust.mesh if trust is not None else ""
    credential, findings = look_at_credential(given.settings.credentials_path, given.now, trust)
    sections = [
        Section("this machine", check_machine(given.settings.engine)),
        Section("broker on this machine", [*here, *await _look_at_seeds(given, mesh)]),
        Section("credential", findings),
    ]
    raw = trust.raw if trust is not None else b""
    brokers = [Section(url, await look_at_broker(given, url, credential, raw)) for url in given.settings.url]
    return [*sections, *brokers]


def _look_here(given: Examination) -> tuple[TrustStore | None, list[Finding]]:
    """Return what the node in the data folder trusts, if there is one, and the findings."""
    findings = look_at_folder(given.folder, given.now)
    if given.node.why_unknown:
        findings.append(failure("settings", *split_remedy(given.node.why_unknown)))
    is_whole = any(finding.check == "node files" and finding.state is State.OK for finding in findings)
    if not (is_whole or given.node.files):
        return None, findings
    trust, more = look_at_node(given.folder, given.now, given.node.files)
    return trust, [*findings, *more]


async def _look_at_seeds(given: Examination, mesh: str) -> list[Finding]:
    if not (given.node.seed or mesh):
        return []
    seeds = await reach_all({seed: [seed] for seed in given.node.seed}, given.timeout_s)
    members, why = read_members(given.folder, mesh)
    remembered = await reach_all(members, given.timeout_s)
    known = check_seeds("members met before", remembered, are_needed=False)
    return [
        check_seeds("seeds", seeds, are_needed=True),
        skipped("members met before", why) if why else known,
    ]


async def look_at_broker(
    given: Examination, text: str, credential: Credential | None, trust: bytes = b""
) -> list[Finding]:
    """Look at one URL, from the name to what the broker says. `trust`: the trust list of this machine's node."""
    try:
        url: BrokerUrl = parse_url(text)
    except InvalidSetting as error:
        return [failure("URL", str(error), "write it as quic://HOST:PORT")]
    addresses, why = await resolve(url, given.timeout_s)
    findings = [check_name(url, addresses, why)]
    answers = await asyncio.gather(*(probe(address, given.timeout_s) for address in addresses))
    good = next(
        (pair for pair in zip(addresses, answers, strict=True) if pair[1].outcome is Outcome.QUIC),
        None,
    )
    for address, answer in zip(addresses, answers, strict=True):
        findings.append(check_udp(address, answer, is_only_way=good is None))
    if good is None:
        return findings
    address, answer = good
    findings.append(check_version(answer))
    findings.append(await _look_at_path(given, address))
    if findings[-2].state is State.FAILURE:
        return findings
    if credential is None:
        return [*findings, skipped("TLS", "without a usable credential there is no mesh to look for; see above")]
    settings = given.settings
    told = await converse(
        address, credential, settings.engine, given.timeout_s, trust=trust, qlog_dir=settings.qlog_dir
    )
    return [*findings, *judge_conversation(told, credential)]


async def _look_at_path(given: Examination, address: Address) -> Finding:
    configured = given.node.max_datagram_size
    sizes: Sequence[int] = sizes_for(is_near=is_this_host(address[0]), configured=configured)
    return check_path(await measure_path(address, sizes, given.timeout_s), sizes, configured)
