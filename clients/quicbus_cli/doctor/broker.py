"""Checks of what a broker said: TLS, its protocol, this credential, its clock, round trips, its mesh."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING

from quicbus.wire.close_codes import CREDENTIAL_CODES, CloseCode
from quicbus.wire.frames import PROTOCOL_VERSION
from quicbus_cli.doctor.conversation import Stage
from quicbus_cli.doctor.finding import Finding, State, failure, ok, skipped, split_remedy, warning
from quicbus_cli.doctor.folder import describe_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.identity import Credential
    from quicbus_cli.doctor.conversation import Conversation

__all__ = [
    "check_clock",
    "check_members",
    "check_proof",
    "check_protocol",
    "check_round_trip",
    "check_tls",
    "judge_conversation",
]

CLOCKS_APART_S = 60
CLOCKS_TOLERATED_S = 300
"""Certificates begin five minutes early (docs/design/identity.md, *Certificates*)."""
_TLS = 0x100
_NO_PROTOCOL = frozenset({_TLS + 40, _TLS + 120})
"""no_application_protocol (RFC 8446), and handshake_failure, which some listeners say instead."""
_EXPIRED = _TLS + 45
_BUSY = frozenset({CloseCode.TOO_MANY_CONNECTIONS, CloseCode.GOING_AWAY, CloseCode.LIMIT_EXCEEDED})


def judge_conversation(told: Conversation, credential: Credential) -> list[Finding]:
    """Judge in the order in which things happen, up to the first that failed."""
    checks: tuple[Callable[[], Finding], ...] = (
        lambda: check_tls(told, credential),
        lambda: check_protocol(told),
        lambda: check_proof(told, credential),
    )
    findings: list[Finding] = []
    for check in checks:
        findings.append(check())
        if findings[-1].state is State.FAILURE:
            return [*findings, skipped("clocks", _UNKNOWN_CLOCK)]
    return [*findings, check_clock(told, credential), check_round_trip(told), check_members(told)]


def check_tls(told: Conversation, credential: Credential) -> Finding:
    """Judge the handshake: is there a node of the credential's mesh at the other end."""
    end = told.termination
    if end is not None and end.is_application and end.is_local and end.code in CREDENTIAL_CODES:
        return failure("TLS", *split_remedy(end.reason))
    if told.stage >= Stage.CONNECTED:
        return ok("TLS", f"a node of mesh {credential.mesh} answers")
    if end is None:
        return failure(
            "TLS",
            told.failure or "the handshake was not answered, although the listener named its versions",
            "the listener may be overloaded (max_half_open), or something on the way drops QUIC; look at its log",
        )
    if end.is_application:
        return failure("TLS", f"closed: {end.reason}", "try again; look at the broker's log if it stays so")
    if not end.is_local and end.code in _NO_PROTOCOL:
        return failure(
            "TLS",
            f"it speaks QUIC but not quicbus (no ALPN in common: {end.reason})",
            "another QUIC service, HTTP/3 perhaps, has this port; correct the URL, or update the broker",
        )
    if end.code == _EXPIRED:
        return failure(
            "TLS",
            f"by this machine's clock the broker's certificate is not valid now ({end.reason})",
            "compare the clocks of both machines; if they agree, the broker's certificate needs renewal there",
        )
    if end.is_local and _TLS + 42 <= end.code <= _TLS + 51:
        what = "a broker of another mesh" if told.stage >= Stage.NEGOTIATED else "a broker of another mesh, or none"
        return failure(
            "TLS",
            f"{what}: its certificate is not of a node of mesh {credential.mesh} ({end.reason})",
            "use a credential of that broker's mesh (`quicbus cert issue --client NAME` where its authority is), also "
            "where the mesh has another authority by now; or correct the URL",
        )
    return failure(
        "TLS",
        f"the handshake failed: {end.reason or 'no answer'} (code 0x{end.code:x})",
        "look at the log of the listener there; --qlog DIR records this side",
    )


def check_protocol(told: Conversation) -> Finding:
    """Judge Welcome: version, and limits that say how the broker is set."""
    welcome = told.welcome
    if told.failure:
        return failure("protocol", told.failure, "update quicbus on both sides; if it stays, report it")
    if welcome is None:
        return _ended_early("protocol", told, "no Welcome came")
    if welcome.version != PROTOCOL_VERSION:
        return failure(
            "protocol",
            f"the broker ({welcome.agent}) speaks version {welcome.version}, this side version {PROTOCOL_VERSION}",
            "update the older of the two",
        )
    size = welcome.limits.max_message_size
    return ok("protocol", f"version {welcome.version}, {welcome.agent}; messages up to {size:,} bytes")


def check_proof(told: Conversation, credential: Credential) -> Finding:
    """Judge what the broker said to the credential."""
    if told.acceptance is not None:
        return ok("credential accepted", f"as {told.acceptance.name}, by node {told.node}")
    end = told.termination
    if end is None or not end.is_application or end.code not in CREDENTIAL_CODES:
        return _ended_early("credential accepted", told, "the broker did not answer the proof")
    seen, remedy = split_remedy(end.reason or CloseCode(end.code).name)
    if end.code == CloseCode.CREDENTIAL_EXPIRED:
        seen = f"{seen} (by this machine's clock it is valid until {credential.not_after:%Y-%m-%d %H:%M} UTC)"
        remedy = "compare the clocks of both machines, one of them is wrong"
    return failure("credential accepted", seen, remedy or "see the broker's log")


def check_clock(told: Conversation, credential: Credential) -> Finding:
    """Compare the clocks: the broker says in how many seconds the certificate ends, this machine knows when."""
    if told.acceptance is None or told.acceptance.expires_in_s is None or told.accepted_at is None:
        return skipped("clocks", _UNKNOWN_CLOCK)
    # It was said between sending the first datagram and now; on average half of that ago.
    there = credential.not_after - dt.timedelta(seconds=told.acceptance.expires_in_s)
    apart_s = (there - told.accepted_at).total_seconds()
    doubt_s = told.handshake_s
    if abs(apart_s) <= CLOCKS_APART_S + doubt_s:
        return ok("clocks", f"this machine's and the broker's agree within {max(abs(apart_s), doubt_s):.1f} s")
    which = "ahead of" if apart_s > 0 else "behind"
    seen = (
        f"the broker's clock is {describe_duration(abs(apart_s))} {which} this machine's; which is wrong is not known"
    )
    remedy = "set both by NTP"
    if abs(apart_s) > CLOCKS_TOLERATED_S:
        return failure("clocks", f"{seen}; new certificates are refused by the one that is behind", remedy)
    return warning("clocks", seen, remedy)


def check_round_trip(told: Conversation) -> Finding:
    times = sorted(told.round_trips_s)
    if not times:
        return failure("round trip", "the broker does not answer a Ping", "it is overloaded or stopped; see its log")
    middle = times[len(times) // 2]
    return ok(
        "round trip",
        f"{middle * 1000:.1f} ms in the middle of {len(times)}, {times[-1] * 1000:.1f} ms at most; "
        f"connected in {told.handshake_s * 1000:.0f} ms",
    )


def check_members(told: Conversation) -> Finding:
    """Judge the mesh as the broker sees it: who is there, and who of them is linked to it."""
    if told.peers is None:
        return skipped("mesh", "the broker did not say in time who is in its mesh")
    others = [peer for peer in told.peers if not peer.is_self]
    if not others:
        return ok("mesh", "the broker is alone in its mesh")
    states = Counter(peer.state for peer in others)
    linked = sum(peer.linked for peer in others)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    seen = f"further nodes: {counts}; the broker is linked to {linked} of them"
    names = ", ".join(sorted(peer.name for peer in others if peer.state in ("suspect", "failed"))[:8])
    if states["alive"] and not linked:
        return failure("mesh", seen, "the broker is cut off from its mesh: look at its log, at UDP between the nodes")
    if not states["alive"] and states["failed"]:
        return failure("mesh", seen, f"the broker sees no other node alive ({names}): look at UDP between the nodes")
    if names:
        return warning("mesh", seen, f"not alive for it: {names}; run `quicbus doctor` with their URLs")
    return ok("mesh", seen)


_UNKNOWN_CLOCK = "no broker told its time, so this machine's clock is compared with nothing"


def _ended_early(check: str, told: Conversation, otherwise: str) -> Finding:
    end = told.termination
    if end is None:
        return failure(check, otherwise, "the broker is overloaded, or too slow for --timeout; look at its log")
    if end.is_application and end.code in _BUSY:
        return failure(check, f"the broker refuses for now: {end.reason}", "try again later, or at another broker")
    if end.is_application and end.code == CloseCode.UNSUPPORTED_VERSION:
        return failure(check, f"the broker speaks another version: {end.reason}", "update the older of the two")
    return failure(check, f"the connection ended: {end.reason or 'no reason given'}", "look at the broker's log")
